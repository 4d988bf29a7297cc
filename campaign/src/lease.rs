//! Who holds a Lease, by what etcd keeps of it: Kubernetes' own kinds are stored as Protocol Buffers.

/// What stands before them.
const MAGIC: &[u8] = b"k8s\0";
/// The object inside of its envelope (`runtime.Unknown.raw`).
const RAW: u64 = 2;
/// `Lease.spec`.
const SPEC: u64 = 2;
/// `LeaseSpec.holderIdentity`.
const HOLDER: u64 = 1;

/// Returns the name of the holder, or an empty name if the Lease is free. None: this is not a Lease.
pub(crate) fn holder(stored: &[u8]) -> Option<String> {
    let lease = field(stored.strip_prefix(MAGIC)?, RAW)?;
    let holder = field(field(lease, SPEC)?, HOLDER).unwrap_or_default();
    String::from_utf8(holder.to_vec()).ok()
}

/// The field of this number in a message, if it has a length.
fn field(mut message: &[u8], number: u64) -> Option<&[u8]> {
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            0 => drop(varint(&mut message)?),
            1 => message = message.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                let (content, rest) = message.split_at_checked(length)?;
                if tag >> 3 == number {
                    return Some(content);
                }
                message = rest;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    None
}

/// Takes a number from the front: seven bits a byte, the lowest first.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(first & 0x7F) << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field with a length.
    fn put(number: u8, content: &[u8]) -> Vec<u8> {
        let length = [u8::try_from(content.len() % 128).unwrap() | 0x80, u8::try_from(content.len() / 128).unwrap()];
        [&[number << 3 | 2][..], &length, content].concat()
    }

    fn stored(spec: &[u8]) -> Vec<u8> {
        let lease = [put(1, &[b'm'; 300]), put(2, spec)].concat();
        [MAGIC, &put(1, b"what it is"), &put(2, &lease)].concat()
    }

    #[test]
    fn the_holder_is_found_among_other_fields() {
        // leaseDurationSeconds: 15
        let spec = [&[2 << 3, 15][..], &put(1, b"first_0a"), &put(3, b"a time")].concat();
        assert_eq!(holder(&stored(&spec)), Some("first_0a".into()));
    }

    #[test]
    fn nobody_holds_a_lease_that_was_given_back() {
        assert_eq!(holder(&stored(&put(1, b""))), Some(String::new()));
        assert_eq!(holder(&stored(&[2 << 3, 15])), Some(String::new()));
    }

    #[test]
    fn what_is_no_lease_or_breaks_off_has_no_holder() {
        let lease = stored(&put(1, b"first"));
        assert_eq!(holder(b"{}"), None);
        assert!((0..lease.len()).all(|end| holder(&lease[..end]).is_none()));
    }
}
