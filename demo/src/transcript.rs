//! Prints the result: the requests that arrived, and what kubectl shows.

use testkit::Result;
use testkit::endpoints::Received;

use crate::cluster::NAMESPACE;
use crate::say::say;
use crate::stage::Stage;

/// Prints the requests that arrived, and the output of kubectl.
pub(crate) async fn print(stage: &Stage, notifications: &[String]) -> Result<()> {
    say("What arrived at the webhook:");
    for request in stage.endpoints().receiver.requests() {
        println!("{}", request_text(&request));
    }
    say("What kubectl shows:");
    kubectl(stage, &["get", "subscribers,notifications", "-n", NAMESPACE]).await?;
    if let Some(name) = notifications.first() {
        kubectl(stage, &["describe", "notification", name, "-n", NAMESPACE]).await?;
    }
    Ok(())
}

/// Runs kubectl and prints the command and its output.
async fn kubectl(stage: &Stage, args: &[&str]) -> Result<()> {
    println!("$ kubectl {}", args.join(" "));
    println!("{}", stage.kubectl().run(args).await?.ok()?);
    Ok(())
}

/// Returns the request as HTTP text, with a shortened token and indented JSON.
pub(crate) fn request_text(request: &Received) -> String {
    let mut text = format!("{} {} HTTP/1.1\n", request.method, request.path);
    for (name, value) in &request.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        let value = if name == "authorization" { shortened(&value) } else { value.into_owned() };
        text.push_str(&format!("{name}: {value}\n"));
    }
    let body = match request.json() {
        Some(json) => format!("{json:#}"),
        None => String::from_utf8_lossy(&request.body).trim_end().to_owned(),
    };
    let answered = request.answered.map_or("not answered".to_owned(), |status| format!("answered with {status}"));
    format!("{text}\n{body}\n<- {answered}\n")
}

fn shortened(authorization: &str) -> String {
    let (scheme, token) = authorization.split_once(' ').unwrap_or(("", authorization));
    let start: String = token.chars().take(6).collect();
    format!("{scheme} {start}… ({} characters)", token.chars().count())
}
