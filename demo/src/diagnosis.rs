//! Prints what helps to find out why a delivery failed.

use serde_json::Value;

use crate::stage::Stage;

/// Prints the status of all objects, the requests to both servers, and the end of the operator's log.
pub(crate) async fn print(stage: &Stage) {
    for kind in ["notifications", "subscribers"] {
        eprintln!("\n--- {kind}");
        match stage.objects(kind).await {
            Ok(objects) => objects.iter().for_each(print_status),
            Err(error) => eprintln!("{error}"),
        }
    }
    let shown = |status: Option<u16>| status.map_or("no response".to_owned(), |status| format!("status {status}"));
    eprintln!("\n--- requests to the token service");
    for request in stage.endpoints().tokens.requests() {
        let client = request.client_id.as_deref().unwrap_or("(none)");
        eprintln!("client {client}: {}, error {}", shown(request.answered), request.error.unwrap_or("(none)"));
    }
    eprintln!("\n--- requests to the webhook");
    for request in stage.endpoints().receiver.requests() {
        eprintln!("{} {}: {}", request.method, request.path, shown(request.answered));
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
