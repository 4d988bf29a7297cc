//! What Keycloak accepts.

use serde_json::{Value, json};

use crate::{
    keys,
    report::Report,
    shop::{Proof, SCOPE, Shop, has_audience},
};

/// A client ID and a secret that HTTP Basic must encode (RFC 6749, section 2.3.1). Decoded twice, or not at all, they
/// would be different.
const CLIENT: &str = "shop:1 %41";
const SECRET: &str = r#"p@ss:w+rd/=%41&~ "2"#;

/// One client authentication.
struct Way {
    /// The `clientAuthentication`, or the algorithm of an assertion.
    how: &'static str,
    /// The setting at Keycloak.
    at_keycloak: &'static str,
    /// What is sent and what replaces it.
    proofs: [Proof; 2],
}

fn ways(shop: &Shop) -> Vec<Way> {
    let secret = |how, [first, second]: [&str; 2]| Way {
        how,
        at_keycloak: "*Client Id and Secret*",
        proofs: [Proof::Secret(first.into()), Proof::Secret(second.into())],
    };
    let key = |how, kind: &[&str]| Way {
        how,
        at_keycloak: "*Signed JWT*",
        proofs: ["first", "second"].map(|id| Proof::Key { pem: keys::key(kind), id }),
    };
    let certificate = || Proof::Certificate(shop.clients.client_identity("shop"));
    vec![
        secret("Basic", [SECRET, "another%2F secret"]),
        secret("Post", [SECRET, "another%2F secret"]),
        secret("BasicUnencoded", ["of-letters", "of-others"]),
        Way { how: "TLS", at_keycloak: "*X509 Certificate*", proofs: [certificate(), certificate()] },
        key("RS256", keys::RSA),
        key("PS256", keys::RSA),
        key("ES256", keys::P256),
        key("EdDSA", keys::ED25519),
    ]
}

pub async fn every_client_authentication_delivers_also_after_a_rotation(shop: &Shop, report: &mut Report) {
    for Way { how, at_keycloak, proofs: [first, second] } in ways(shop) {
        let name = how.to_lowercase();
        let client_id = if how == "BasicUnencoded" { name.clone() } else { format!("{CLIENT} {name}") };
        shop.keycloak.register(&client_id, SCOPE, &Proof::settings(how, &[&first])).await.unwrap();
        shop.secret(&name, &first).await;
        shop.subscriber(&name, &client_id, how, |_| ()).await;
        let before = shop.deliver(&name, &name).await;
        shop.world.until_reason(&name, "Operational").await;

        shop.secret(&name, &second).await;
        let rotation = match &second {
            Proof::Certificate(_) => {
                shop.reconcile(&name, "renewed").await;
                "a renewed certificate with the same subject is accepted at once"
            }
            _ => {
                shop.until_token(&name, "TokenUnavailable", "does not accept the new client credentials yet").await;
                let served = shop.deliver(&format!("{name}-between"), &name).await;
                assert_eq!(served["jti"], before["jti"], "{how}: the former token serves on");
                let known = if matches!(second, Proof::Secret(_)) { vec![&second] } else { vec![&first, &second] };
                shop.keycloak.change(&client_id, &Proof::settings(how, &known)).await.unwrap();
                shop.reconcile(&name, "known").await;
                shop.until_token(&name, "TokenIssued", "").await;
                "the former token is used until Keycloak accepts the new credentials"
            }
        };
        let after = shop.deliver(&format!("{name}-after"), &name).await;
        assert_ne!(after["jti"], before["jti"], "{how}: a token for the new credentials");
        for (token, proof) in [(before, first), (after, second)] {
            assert_eq!((&token["client_id"], &token["scope"]), (&json!(client_id), &json!(SCOPE)), "{how}");
            if let Proof::Certificate(identity) = proof {
                // The token is bound to the certificate with which it was requested (RFC 8705, section 3).
                assert_eq!(token["cnf"]["x5t#S256"], keys::thumbprint(&identity.certificate_pem));
            }
        }
        report.accepted(how, at_keycloak, rotation);
    }
}

pub async fn a_target_of_the_request_does_not_change_the_audience(shop: &Shop, report: &mut Report) {
    let elsewhere = "https://elsewhere.example.com/";
    let targets = [("audience", json!(elsewhere)), ("resources", json!([elsewhere]))];
    let proof = Proof::Secret("of-the-target".into());
    for (field, target) in targets {
        shop.keycloak.register(field, SCOPE, &Proof::settings("Basic", &[&proof])).await.unwrap();
        shop.secret(field, &proof).await;
        shop.subscriber(field, field, "Basic", |service| service[field] = target).await;
        let token = shop.deliver(field, field).await;
        assert!(has_audience(&token) && !token["aud"].to_string().contains(elsewhere), "{token}");
        report.setting(
            &format!("`tokenService.{field}`"),
            "Keycloak ignores it: the claim `aud` has what the Audience mappers say",
        );
    }
    let proof = Proof::Key { pem: keys::key(keys::ED25519), id: "only" };
    shop.keycloak.register("issuer", SCOPE, &Proof::settings("EdDSA", &[&proof])).await.unwrap();
    shop.secret("issuer", &proof).await;
    let to_issuer = |service: &mut Value| {
        service["privateKeyJWT"]["audience"] = shop.keycloak.issuer().into();
        service["privateKeyJWT"]["lifetimeSeconds"] = 600.into();
    };
    shop.subscriber("issuer", "issuer", "EdDSA", to_issuer).await;
    shop.deliver("issuer", "issuer").await;
    report.setting(
        "`tokenService.privateKeyJWT.audience`",
        "the token URL (the default) and the issuer, `https://HOST/realms/REALM`, are accepted",
    );
    report.setting("`tokenService.privateKeyJWT.lifetimeSeconds`", "60 (the default) and 600 are accepted");
}
