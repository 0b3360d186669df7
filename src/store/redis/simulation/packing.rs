//! What scripts pack and unpack, as Redis's own library does it.

use mlua::{Lua, Value, Variadic};

use super::interpreter::Values;

/// MessagePack, one value behind the other.
pub fn pack(lua: &Lua, values: Values) -> mlua::Result<mlua::LuaString> {
    let mut packed = Vec::new();
    for value in values {
        match value {
            Value::Nil => packed.push(0xc0),
            Value::Boolean(flag) => packed.push(0xc2 + u8::from(flag)),
            Value::Integer(number) => integer(&mut packed, number),
            Value::Number(number) if number.fract() == 0.0 => integer(&mut packed, number as i64),
            Value::Number(number) => {
                packed.push(0xcb);
                packed.extend(number.to_be_bytes());
            }
            Value::String(text) => bytes(&mut packed, &text.as_bytes()),
            other => {
                return Err(mlua::Error::runtime(format!(
                    "packs a {}",
                    other.type_name()
                )));
            }
        }
    }
    lua.create_string(packed)
}

fn integer(packed: &mut Vec<u8>, number: i64) {
    match number {
        0..0x80 => packed.push(number as u8),
        0x80..0x100 => packed.extend([0xcc, number as u8]),
        0x100..0x1_0000 => {
            packed.push(0xcd);
            packed.extend((number as u16).to_be_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            packed.push(0xce);
            packed.extend((number as u32).to_be_bytes());
        }
        _ => {
            packed.push(0xd3);
            packed.extend(number.to_be_bytes());
        }
    }
}

fn bytes(packed: &mut Vec<u8>, text: &[u8]) {
    match text.len() {
        length @ 0..0x20 => packed.push(0xa0 | length as u8),
        length @ 0x20..0x100 => packed.extend([0xd9, length as u8]),
        length @ 0x100..0x1_0000 => {
            packed.push(0xda);
            packed.extend((length as u16).to_be_bytes());
        }
        length => {
            packed.push(0xdb);
            packed.extend((length as u32).to_be_bytes());
        }
    }
    packed.extend(text);
}

/// A packed value.
#[derive(Clone, Debug, PartialEq)]
pub enum Plain {
    Nothing,
    Flag(bool),
    Number(f64),
    Text(Vec<u8>),
}

/// None for what is none of these.
pub fn read(mut packed: &[u8]) -> Option<Vec<Plain>> {
    let mut values = Vec::with_capacity(40);
    while let [head, rest @ ..] = packed {
        packed = rest;
        let (value, rest) = match *head {
            0xc0 => (Plain::Nothing, packed),
            0xc2 => (Plain::Flag(false), packed),
            0xc3 => (Plain::Flag(true), packed),
            small @ 0..0x80 => (Plain::Number(small.into()), packed),
            0xcc => number::<1>(packed, |b| b[0].into())?,
            0xcd => number::<2>(packed, |b| u16::from_be_bytes(b).into())?,
            0xce => number::<4>(packed, |b| u32::from_be_bytes(b).into())?,
            0xcf => number::<8>(packed, |b| u64::from_be_bytes(b) as f64)?,
            0xd0 => number::<1>(packed, |b| (b[0] as i8).into())?,
            0xd1 => number::<2>(packed, |b| i16::from_be_bytes(b).into())?,
            0xd2 => number::<4>(packed, |b| i32::from_be_bytes(b).into())?,
            0xd3 => number::<8>(packed, |b| i64::from_be_bytes(b) as f64)?,
            0xcb => number::<8>(packed, f64::from_be_bytes)?,
            short @ 0xa0..0xc0 => text(packed, usize::from(short & 0x1f))?,
            0xd9 => {
                let (length, rest) = packed.split_first()?;
                text(rest, usize::from(*length))?
            }
            0xda => {
                let (length, rest) = packed.split_first_chunk::<2>()?;
                text(rest, usize::from(u16::from_be_bytes(*length)))?
            }
            0xdb => {
                let (length, rest) = packed.split_first_chunk::<4>()?;
                text(rest, u32::from_be_bytes(*length) as usize)?
            }
            negative @ 0xe0.. => (Plain::Number((negative as i8).into()), packed),
            _ => return None,
        };
        values.push(value);
        packed = rest;
    }
    Some(values)
}

fn number<const N: usize>(packed: &[u8], read: fn([u8; N]) -> f64) -> Option<(Plain, &[u8])> {
    let (bytes, rest) = packed.split_first_chunk::<N>()?;
    Some((Plain::Number(read(*bytes)), rest))
}

fn text(packed: &[u8], length: usize) -> Option<(Plain, &[u8])> {
    let (text, rest) = packed.split_at_checked(length)?;
    Some((Plain::Text(text.to_vec()), rest))
}

pub fn unpack(lua: &Lua, packed: mlua::LuaString) -> mlua::Result<Variadic<Value>> {
    let values = read(&packed.as_bytes()).ok_or(mlua::Error::runtime("not packed"))?;
    let values = values.into_iter().map(|value| {
        Ok(match value {
            Plain::Nothing => Value::Nil,
            Plain::Flag(flag) => Value::Boolean(flag),
            Plain::Number(number) => Value::Number(number),
            Plain::Text(text) => Value::String(lua.create_string(text)?),
        })
    });
    values.collect()
}

/// `struct.unpack` for the one format that the scripts use: words of four bytes.
pub fn big_endian_words(
    _: &Lua,
    (_format, bytes): (String, mlua::LuaString),
) -> mlua::Result<Variadic<Value>> {
    let bytes = bytes.as_bytes();
    let words = bytes.chunks_exact(4);
    let words = words.map(|b| Value::Number(u32::from_be_bytes([b[0], b[1], b[2], b[3]]).into()));
    Ok(words.collect())
}
