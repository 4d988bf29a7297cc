//! The credentials for the proxy, from a file.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use secrecy::zeroize::Zeroizing;

/// The maximum length of the file, in bytes.
const MAX_FILE: usize = 4 << 10;

/// A file with a user name and a password, separated by a colon. It is read for each connection, so a changed file
/// takes effect immediately.
#[derive(Debug)]
pub(super) struct CredentialsFile(pub(super) PathBuf);

/// What is wrong with the file. The errors contain nothing of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsFault {
    /// The file cannot be read.
    #[error("cannot be read ({0})")]
    Unreadable(io::ErrorKind),
    /// The file is too long.
    #[error("is longer than {} KiB", MAX_FILE >> 10)]
    TooLong,
    /// The content is not a user name, a colon and a password.
    #[error("does not contain a line of the form user:password")]
    Malformed,
}

impl CredentialsFile {
    /// Reads the file. Returns the value of Proxy-Authorization (HTTP Basic, RFC 7617).
    pub(super) fn authorization(&self) -> Result<HeaderValue, CredentialsFault> {
        let unreadable = |error: io::Error| CredentialsFault::Unreadable(error.kind());
        // The buffer never grows: a larger one would leave a copy behind.
        let mut content = Zeroizing::new(vec![0; MAX_FILE + 1]);
        let mut file = File::open(&self.0).map_err(unreadable)?;
        let mut length = 0;
        while length < content.len() {
            match file.read(&mut content[length..]).map_err(unreadable)? {
                0 => break,
                read => length += read,
            }
        }
        basic(&content[..length])
    }
}

/// Encodes the content of the file.
fn basic(content: &[u8]) -> Result<HeaderValue, CredentialsFault> {
    if content.len() > MAX_FILE {
        return Err(CredentialsFault::TooLong);
    }
    let line = content.strip_suffix(b"\n").unwrap_or(content);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let has_user = line.iter().position(|byte| *byte == b':').is_some_and(|colon| colon > 0);
    if !has_user || line.iter().any(u8::is_ascii_control) {
        return Err(CredentialsFault::Malformed);
    }
    let mut value = Zeroizing::new(String::with_capacity(line.len() * 4 / 3 + 16));
    value.push_str("Basic ");
    STANDARD.encode_string(line, &mut value);
    let mut value = HeaderValue::from_str(&value).map_err(|_error| CredentialsFault::Malformed)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use testkit::folder::Folder;

    use super::*;

    #[test]
    fn the_file_holds_a_user_a_colon_and_a_password_with_or_without_a_newline() {
        for content in ["Aladdin:open sesame", "Aladdin:open sesame\n", "Aladdin:open sesame\r\n"] {
            let value = basic(content.as_bytes()).unwrap();
            // The example of RFC 7617, section 2.
            assert_eq!(value, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
            assert!(value.is_sensitive() && !format!("{value:?}").contains("QWxh"));
        }
        for content in ["user:", "user:pass:word", "bücher:p"] {
            assert!(basic(content.as_bytes()).is_ok(), "{content}");
        }
        for content in ["", "\n", ":", ":password", "user", "user\n:password", "user:pass\nuser:pass\n", "u:\0"] {
            assert_eq!(basic(content.as_bytes()), Err(CredentialsFault::Malformed), "{content:?}");
        }
        assert_eq!(basic(format!("u:{}", "p".repeat(MAX_FILE)).as_bytes()), Err(CredentialsFault::TooLong));
    }

    #[test]
    fn the_file_is_read_each_time_and_a_fault_shows_nothing_of_it() {
        let folder = Folder::new("proxy-credentials").unwrap();
        let file = CredentialsFile(folder.path().join("credentials"));
        assert_eq!(file.authorization(), Err(CredentialsFault::Unreadable(io::ErrorKind::NotFound)));
        folder.write("credentials", "canary").unwrap();
        let fault = file.authorization().unwrap_err();
        assert!(!format!("{fault} {fault:?}").contains("canary"), "{fault}");
        folder.write("credentials", "user:password\n").unwrap();
        let first = file.authorization().unwrap();
        folder.write("credentials", "user:changed\n").unwrap();
        assert_ne!(file.authorization().unwrap(), first);
        folder.write("credentials", &format!("u:{}", "p".repeat(1 << 20))).unwrap();
        assert_eq!(file.authorization(), Err(CredentialsFault::TooLong));
    }
}
