//! Why a delivery did not happen, from everybody who may know.

use serde_json::Value;

use crate::stage::Stage;

/// Prints what the Notifications, the Subscribers, both servers and the operator know.
pub(crate) async fn print(stage: &Stage) {
    for kind in ["notifications", "subscribers"] {
        eprintln!("\n--- {kind}");
        match stage.objects(kind).await {
            Ok(objects) => objects.iter().for_each(print_status),
            Err(error) => eprintln!("{error}"),
        }
    }
    eprintln!("\n--- requests to the token service");
    for request in stage.endpoints().tokens.requests() {
        let client = request.client_id.as_deref().unwrap_or("nobody");
        eprintln!("by {client}: status {:?}, error {:?}", request.answered, request.error);
    }
    eprintln!("\n--- requests to the webhook");
    for request in stage.endpoints().receiver.requests() {
        eprintln!("{} {}: status {:?}", request.method, request.path, request.answered);
    }
    eprintln!("\n{}", stage.operator.process().log_tail(30));
}

fn print_status(object: &Value) {
    let status = &object["status"];
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    eprintln!(
        "{}: phase {}, reason {}",
        text(&object["metadata"]["name"]),
        text(&status["phase"]),
        text(&status["reason"])
    );
    for condition in status["conditions"].as_array().into_iter().flatten() {
        let [kind, state, reason, message] = ["type", "status", "reason", "message"].map(|key| text(&condition[key]));
        eprintln!("    {kind}={state} {reason}: {message}");
    }
}
