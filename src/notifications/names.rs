//! Compact names for Notifications in the queue, which may hold a million of them.

use std::fmt::{Display, Formatter, Write};

use sha2::{Digest, Sha256};

/// The uid of a Notification: the 16 bytes of a UUID, which every API server assigns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Uid([u8; 16]);

/// The name of a Notification, and its uid if the uid is not a UUID in the usual form. Short names need no allocation.
#[derive(Clone, Debug)]
pub struct Name(Text);

#[derive(Clone, Debug)]
enum Text {
    Short(u8, [u8; Text::SHORT]),
    Long(Box<str>),
}

impl Text {
    const SHORT: usize = 22;
}

/// Separates name and uid; no object name contains it.
const BETWEEN: char = '/';

impl Uid {
    /// Returns the uid for this text, or a hash if the text is not a UUID.
    pub fn of(text: &str) -> Self {
        parse(text).unwrap_or_else(|| {
            let hash = Sha256::digest(text);
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&hash[..16]);
            Self(bytes)
        })
    }

    fn text(self) -> String {
        let mut text = String::with_capacity(36);
        for (place, byte) in self.0.iter().enumerate() {
            let dash = if matches!(place, 4 | 6 | 8 | 10) { "-" } else { "" };
            let _ = write!(text, "{dash}{byte:02x}");
        }
        text
    }
}

/// Parses a UUID in its usual form: lower case, with dashes.
fn parse(text: &str) -> Option<Uid> {
    let mut bytes = [0; 16];
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    let uid = Uid(bytes);
    (uid.text() == text).then_some(uid)
}

impl Name {
    /// Makes the name of the Notification with this uid.
    pub fn new(name: &str, uid: &str) -> Self {
        let text = if parse(uid).is_some() { name.to_owned() } else { format!("{name}{BETWEEN}{uid}") };
        let mut short = [0; Text::SHORT];
        Self(match (short.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(bytes), Ok(length)) => {
                bytes.copy_from_slice(text.as_bytes());
                Text::Short(length, short)
            }
            _ => Text::Long(text.into()),
        })
    }

    /// Returns the name of the Notification.
    pub fn name(&self) -> &str {
        self.text().split(BETWEEN).next().unwrap_or_default()
    }

    /// Returns the uid of the Notification, as the API server writes it.
    pub fn uid(&self, id: &Uid) -> String {
        self.text().split_once(BETWEEN).map_or_else(|| id.text(), |(_, uid)| uid.to_owned())
    }

    fn text(&self) -> &str {
        match &self.0 {
            Text::Short(length, bytes) => std::str::from_utf8(&bytes[..usize::from(*length)]).unwrap_or_default(),
            Text::Long(text) => text,
        }
    }
}

impl Display for Name {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_and_a_name_come_back_as_they_were() {
        for uid in ["0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9", "no-uuid", "0A1B2C3D-4E5F-6071-8293-A4B5C6D7E8F9", "é", ""]
        {
            for name in ["n", "exactly-22-bytes-of-it", &"long".repeat(60)] {
                let (id, text) = (Uid::of(uid), Name::new(name, uid));
                assert_eq!((text.name(), &*text.uid(&id)), (name, uid));
            }
        }
        assert_ne!(Uid::of("a"), Uid::of("b"));
        assert_eq!((size_of::<Uid>(), size_of::<Name>()), (16, 24));
    }
}
