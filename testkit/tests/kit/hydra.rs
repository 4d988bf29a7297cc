use base64::{Engine, engine::general_purpose::STANDARD};
use tidings_testkit::endpoints::AuthMethod;
use tidings_testkit::{Authority, Client, Hydra, Receiver};

use crate::client::{Answer, send};

const ID: &str = "shop:1 %41";
const SECRET: &str = r#"p@ss:w+rd/=%41&~ "2"#;

async fn token(authority: &Authority, hydra: &Hydra, headers: &[(&str, &str)], fields: &[(&str, &str)]) -> Answer {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials").extend_pairs(fields);
    let headers = [&[("content-type", "application/x-www-form-urlencoded")], headers].concat();
    send(authority, "POST", &hydra.url(), &headers, &form.finish()).await.unwrap()
}

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

fn form_encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[tokio::test]
async fn hydra_accepts_only_the_registered_method_and_decodes_form_encoded_credentials() {
    let authority = Authority::new();
    let hydra = Hydra::start(&authority).await.unwrap();
    let (by_basic, by_post) = (Client::new(ID, SECRET), Client::new("post", SECRET));
    hydra.register(&by_basic, AuthMethod::Basic, &[]).await.unwrap();
    hydra.register(&by_post, AuthMethod::Post, &[]).await.unwrap();
    let refused = hydra.register(&by_post, AuthMethod::Post, &[]).await.unwrap_err();
    assert!(refused.to_string().contains("409"), "{refused}");

    let encoded = basic(&form_encoded(ID), &form_encoded(SECRET));
    let by_header = async |header: &str| token(&authority, &hydra, &[("authorization", header)], &[]).await;
    assert_eq!(by_header(&encoded).await.json()["token_type"], "bearer");
    let as_it_is = by_header(&basic(ID, SECRET)).await;
    assert!(matches!(as_it_is.status, 400 | 401), "{}: {}", as_it_is.status, as_it_is.body);
    assert_eq!(by_header(&basic("post", &form_encoded(SECRET))).await.json()["error"], "invalid_client");

    let by_body = async |id| token(&authority, &hydra, &[], &[("client_id", id), ("client_secret", SECRET)]).await;
    assert_eq!(by_body("post").await.json()["token_type"], "bearer");
    assert_eq!(by_body(ID).await.json()["error"], "invalid_client");
}

#[tokio::test]
async fn a_receiver_can_check_a_token_with_hydra() {
    let authority = Authority::new();
    let hydra = Hydra::start(&authority).await.unwrap();
    let (client, audience) = (Client::new("shop", SECRET).scopes(["events.write"]), "https://hooks.example.com/");
    hydra.register(&client, AuthMethod::Post, &[audience]).await.unwrap();
    let fields = [("client_id", "shop"), ("client_secret", SECRET), ("scope", "events.write"), ("audience", audience)];
    let answer = token(&authority, &hydra, &[], &fields).await.json();
    let token = answer["access_token"].as_str().unwrap();

    let introspection = hydra.introspection();
    let known = introspection.introspect(token).await.unwrap().unwrap();
    assert_eq!((&known["client_id"], &known["scope"]), (&"shop".into(), &"events.write".into()));
    assert_eq!(known["aud"], serde_json::json!([audience]));
    assert!(introspection.introspect(&token.replace("ory_at_", "ory_at_x")).await.unwrap().is_none());

    let check = move |token: String| async move { introspection.introspect(&token).await.unwrap().is_some() };
    let receiver = Receiver::start_with_check(&authority, check).await.unwrap();
    for (token, status) in [(token, 204), ("guessed", 401)] {
        let headers = [("authorization", format!("Bearer {token}"))];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        assert_eq!(send(&authority, "POST", &receiver.url("/"), &headers, "").await.unwrap().status, status);
    }
}
