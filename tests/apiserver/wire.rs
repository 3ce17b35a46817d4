//! A reader of protobuf that knows no message: fields by their numbers, independent of kube-dnat
//! and of the server.

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Number(u64),
    Data(Vec<u8>),
}

/// Reads the fields of a message in their order; `None` if it is malformed.
pub(crate) fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Field)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)?),
            2 => {
                let length = varint(&mut bytes)?.try_into().ok()?;
                let (data, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Field::Data(data.to_owned())
            }
            _ => return None,
        };
        fields.push((tag >> 3, field));
    }
    Some(fields)
}

/// Returns the data at a path of field numbers, from every field of that path.
pub(crate) fn at(bytes: &[u8], path: &[u64]) -> Vec<Vec<u8>> {
    let Some((number, rest)) = path.split_first() else {
        return vec![bytes.to_owned()];
    };
    let fields = fields(bytes).into_iter().flatten();
    let inner = fields.filter_map(|field| match field {
        (known, Field::Data(data)) if known == *number => Some(data),
        _ => None,
    });
    inner.flat_map(|data| at(&data, rest)).collect()
}

/// Returns the only data at a path as text.
pub(crate) fn text(bytes: &[u8], path: &[u64]) -> String {
    let found = at(bytes, path);
    let [data] = &found[..] else {
        panic!("{path:?} is not there once: {found:?}");
    };
    String::from_utf8(data.clone()).expect("text")
}

/// Splits a watch into its frames; `None` if the last one is not complete.
pub(crate) fn frames(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk()?;
        let length = u32::from_be_bytes(*length).try_into().ok()?;
        let (frame, rest) = rest.split_at_checked(length)?;
        frames.push(frame.to_owned());
        bytes = rest;
    }
    Some(frames)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
