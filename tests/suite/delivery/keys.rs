//! Private keys that OpenSSL creates, their public keys as JWKs, and signatures that OpenSSL verifies.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use testkit::folder::Folder;

/// The kinds of keys that these tests create, as arguments of `openssl`.
pub const RSA: &[&str] = &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
pub const RSA_PKCS1: &[&str] = &["genrsa", "-traditional", "2048"];
pub const P256: &[&str] = &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
/// SEC 1, after a block with the parameters of the curve.
pub const P256_SEC1: &[&str] = &["ecparam", "-genkey", "-name", "prime256v1"];
pub const ED25519: &[&str] = &["genpkey", "-algorithm", "ED25519"];

/// Runs `openssl` with this standard input, and returns its standard output.
pub fn openssl(args: &[&str], input: &[u8]) -> Vec<u8> {
    let (success, output, errors) = run(args, input);
    assert!(success, "openssl {args:?}: {errors}");
    output
}

fn run(args: &[&str], input: &[u8]) -> (bool, Vec<u8>, String) {
    let mut command = Command::new("openssl");
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("these tests need the program openssl");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A new private key, as PEM.
pub fn key(kind: &[&str]) -> String {
    String::from_utf8(openssl(kind, b"")).unwrap()
}

/// A certificate for a private key, as PEM.
pub fn certificate(key: &str) -> String {
    let args = ["req", "-x509", "-new", "-key", "/dev/stdin", "-subj", "/CN=shop", "-days", "1"];
    String::from_utf8(openssl(&args, key.as_bytes())).unwrap()
}

/// The SHA-256 of a certificate in DER, as the header parameter `x5t#S256` holds it.
pub fn thumbprint(certificate: &str) -> String {
    let der = openssl(&["x509", "-outform", "DER"], certificate.as_bytes());
    URL_SAFE_NO_PAD.encode(openssl(&["dgst", "-sha256", "-binary"], &der))
}

/// The public key of a private key as a JWK (RFC 7517) with this id, for signatures with this algorithm.
pub fn jwk(key: &str, id: &str, algorithm: &str) -> Value {
    // The end of the SubjectPublicKeyInfo is the point: of ECDSA 04, x and y, of Ed25519 its 32 bytes.
    let point = |length: usize| {
        let der = openssl(&["pkey", "-pubout", "-outform", "DER"], key.as_bytes());
        der[der.len() - length..].to_vec()
    };
    let mut jwk = if algorithm == "ES256" {
        let point = point(64);
        json!({"kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(&point[..32]), "y": URL_SAFE_NO_PAD.encode(&point[32..])})
    } else if algorithm == "EdDSA" {
        json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(point(32))})
    } else {
        let modulus = String::from_utf8(openssl(&["rsa", "-noout", "-modulus"], key.as_bytes())).unwrap();
        let digits = modulus.trim().strip_prefix("Modulus=").unwrap();
        let bytes: Vec<_> =
            (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect();
        json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode(bytes), "e": "AQAB"})
    };
    jwk["kid"] = id.into();
    jwk["use"] = "sig".into();
    jwk["alg"] = algorithm.into();
    jwk
}

/// The parts of a JWT: its header, its claims, what is signed and the signature.
pub struct Parts {
    pub header: Value,
    pub claims: Value,
    pub signed: String,
    pub signature: Vec<u8>,
}

/// Takes a JWT apart (RFC 7519, section 7.2), without a check of its signature.
pub fn parts(jwt: &str) -> Parts {
    let (signed, signature) = jwt.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let read = |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    Parts {
        header: read(header),
        claims: read(claims),
        signed: signed.to_owned(),
        signature: URL_SAFE_NO_PAD.decode(signature).unwrap(),
    }
}

/// Whether OpenSSL accepts the signature of a JWT by this private key.
pub fn is_signed_by(jwt: &str, key: &str, algorithm: &str) -> bool {
    let Parts { signed, signature, .. } = parts(jwt);
    let folder = Folder::new("jwt").unwrap();
    let public = String::from_utf8(openssl(&["pkey", "-pubout"], key.as_bytes())).unwrap();
    let public = folder.write("public.pem", &public).unwrap().display().to_string();
    let signed = folder.write("signed", &signed).unwrap().display().to_string();
    let at = folder.path().join("signature");
    fs::write(&at, if algorithm == "ES256" { der(&signature) } else { signature }).unwrap();
    let at = at.display().to_string();
    let dgst = ["dgst", "-sha256", "-verify", &public, "-signature", &at];
    let pss = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32"];
    let args = match algorithm {
        "RS256" | "ES256" => [&dgst[..], &[&signed]].concat(),
        "PS256" => [&dgst[..], &pss, &[&signed]].concat(),
        "EdDSA" => {
            vec!["pkeyutl", "-verify", "-pubin", "-inkey", &public, "-rawin", "-in", &signed, "-sigfile", &at]
        }
        other => panic!("{other}"),
    };
    run(&args, b"").0
}

/// The DER form of an ECDSA signature (RFC 3279, section 2.2.3), which OpenSSL reads, of the form of JWS: r and s.
fn der(signature: &[u8]) -> Vec<u8> {
    assert_eq!(signature.len(), 64, "r and s have 32 bytes each (RFC 7518, section 3.4)");
    let integer = |bytes: &[u8]| {
        let start = bytes.iter().position(|byte| *byte != 0).unwrap();
        let sign = (bytes[start] >= 0x80).then_some(0);
        let value: Vec<_> = sign.into_iter().chain(bytes[start..].iter().copied()).collect();
        [&[2, u8::try_from(value.len()).unwrap()][..], &value].concat()
    };
    let pair = [integer(&signature[..32]), integer(&signature[32..])].concat();
    [&[0x30, u8::try_from(pair.len()).unwrap()][..], &pair].concat()
}
