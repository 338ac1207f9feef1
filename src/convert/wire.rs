//! Just enough of the protobuf wire format to change parts of a file and keep every other
//! byte, fields that this build does not know included.

/// One field of a message.
pub(crate) struct Field<'a> {
    pub number: u64,
    /// The whole field, its key included.
    pub raw: &'a [u8],
    /// The bytes of a length-delimited field, else nothing.
    pub payload: &'a [u8],
}

/// The fields of `message` in order, or `None` if it is damaged.
pub(crate) fn fields(message: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut out = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let start = rest;
        let key = varint(&mut rest)?;
        let mut payload: &[u8] = &[];
        match key & 7 {
            0 => {
                varint(&mut rest)?;
            }
            1 => rest = rest.get(8..)?,
            5 => rest = rest.get(4..)?,
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                payload = rest.get(..length)?;
                rest = &rest[length..];
            }
            _ => return None,
        }
        out.push(Field { number: key >> 3, raw: &start[..start.len() - rest.len()], payload });
    }
    Some(out)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for i in 0..10 {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 127).checked_shl(7 * i)?;
        if byte < 128 {
            return Some(value);
        }
    }
    None
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 128 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length-delimited field.
pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u64, payload: &[u8]) {
    put_varint(out, number << 3 | 2);
    put_varint(out, payload.len() as u64);
    out.extend_from_slice(payload);
}

/// Appends an integer field.
pub(crate) fn put_int(out: &mut Vec<u8>, number: u64, value: u64) {
    put_varint(out, number << 3);
    put_varint(out, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_as_they_were() {
        let mut m = Vec::new();
        put_int(&mut m, 1, 300);
        put_bytes(&mut m, 20, b"abc");
        m.extend([0x1d, 1, 2, 3, 4]);
        m.extend([0x21, 1, 2, 3, 4, 5, 6, 7, 8]);
        let f = fields(&m).unwrap();
        assert_eq!(f.iter().map(|f| f.number).collect::<Vec<_>>(), [1, 20, 3, 4]);
        assert_eq!(f[1].payload, b"abc");
        assert_eq!(f.iter().flat_map(|f| f.raw).copied().collect::<Vec<_>>(), m);
    }

    #[test]
    fn damage_is_noticed() {
        for bad in [&[0x0a, 5, 1][..], &[0x0a], &[0x80; 11], &[0x0b], &[0x09, 1], &[8, 0xff]] {
            assert!(fields(bad).is_none(), "{bad:?}");
        }
    }
}
