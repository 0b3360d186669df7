//! Runs the scripts themselves, in the Lua that Redis has, over simulated data.

use std::cell::RefCell;
use std::collections::HashMap;

use mlua::{Function, Lua, MultiValue, Table, Value as L, Variadic};
use redis::Value;

use super::data::{Data, score_text};
use super::packing;

/// A deliberate mistake: a piece of a script, and what stands there instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Break {
    pub script: &'static str,
    pub is: &'static str,
    pub becomes: &'static str,
}

struct Interpreter {
    lua: Lua,
    functions: HashMap<(String, Option<Break>), Function>,
}

thread_local! {
    static INTERPRETER: RefCell<Interpreter> = RefCell::new(Interpreter::new().unwrap());
    /// What the script that runs works on, and the server's time.
    static DATA: RefCell<(Data, i64)> = RefCell::default();
}

/// One script, whole: nothing else happens meanwhile. An error is a text as Redis has it.
pub fn run(
    (text, sha1): (&str, &str),
    broken: Option<Break>,
    data: &mut Data,
    now: i64,
    keys: &[Vec<u8>],
    args: &[Vec<u8>],
) -> Result<Value, String> {
    INTERPRETER.with_borrow_mut(|interpreter| {
        let function = interpreter.function(text, sha1, broken)?;
        DATA.replace((std::mem::take(data), now));
        let answer = interpreter.call(&function, keys, args);
        *data = DATA.take().0;
        answer.map_err(|error| format!("ERR {error}"))?
    })
}

impl Interpreter {
    fn new() -> mlua::Result<Self> {
        let lua = Lua::new();
        let redis = lua.create_table()?;
        redis.set("call", lua.create_function(call)?)?;
        redis.set(
            "error_reply",
            lua.create_function(|lua, text: mlua::LuaString| {
                let reply = lua.create_table()?;
                reply.set("err", text)?;
                Ok(reply)
            })?,
        )?;
        let packed = lua.create_table()?;
        packed.set("pack", lua.create_function(packing::pack)?)?;
        packed.set("unpack", lua.create_function(packing::unpack)?)?;
        let json = lua.create_table()?;
        json.set(
            "decode",
            lua.create_function(|_, text: String| {
                serde_json::from_str::<Vec<String>>(&text).map_err(mlua::Error::external)
            })?,
        )?;
        let fixed = lua.create_table()?;
        fixed.set("unpack", lua.create_function(packing::big_endian_words)?)?;
        let globals = lua.globals();
        globals.set("redis", redis)?;
        globals.set("cmsgpack", packed)?;
        globals.set("cjson", json)?;
        globals.set("struct", fixed)?;
        Ok(Interpreter {
            lua,
            functions: HashMap::new(),
        })
    }

    fn function(
        &mut self,
        text: &str,
        sha1: &str,
        broken: Option<Break>,
    ) -> Result<Function, String> {
        let key = (sha1.to_owned(), broken);
        if let Some(function) = self.functions.get(&key) {
            return Ok(function.clone());
        }
        let mut text = text.to_owned();
        if let Some(broken) = broken {
            assert!(text.contains(broken.is), "not there: {broken:?}");
            text = text.replacen(broken.is, broken.becomes, 1);
        }
        // The shebang is Redis's; the lines keep their numbers.
        let text = format!("--{text}");
        let function = self.lua.load(text).into_function();
        let function = function.map_err(|error| error.to_string())?;
        self.functions.insert(key, function.clone());
        Ok(function)
    }

    fn call(
        &self,
        function: &Function,
        keys: &[Vec<u8>],
        args: &[Vec<u8>],
    ) -> mlua::Result<Result<Value, String>> {
        let strings = |texts: &[Vec<u8>]| {
            let texts: mlua::Result<Vec<_>> =
                texts.iter().map(|t| self.lua.create_string(t)).collect();
            self.lua.create_sequence_from(texts?)
        };
        let globals = self.lua.globals();
        globals.set("KEYS", strings(keys)?)?;
        globals.set("ARGV", strings(args)?)?;
        answered(function.call(())?)
    }
}

fn call(lua: &Lua, args: Variadic<L>) -> mlua::Result<L> {
    let args: mlua::Result<Vec<Vec<u8>>> = args.iter().map(text).collect();
    let args = args?;
    let answer = DATA.with_borrow_mut(|(data, now)| data.run(*now, &args));
    told(lua, answer.map_err(mlua::Error::runtime)?)
}

fn text(value: &L) -> mlua::Result<Vec<u8>> {
    match value {
        L::String(text) => Ok(text.as_bytes().to_vec()),
        L::Integer(number) => Ok(number.to_string().into_bytes()),
        L::Number(number) => Ok(score_text(*number).into_bytes()),
        other => Err(mlua::Error::runtime(format!(
            "an argument of a command is a {}",
            other.type_name()
        ))),
    }
}

/// An answer of a command as a script sees it.
fn told(lua: &Lua, value: Value) -> mlua::Result<L> {
    Ok(match value {
        Value::Nil => L::Boolean(false),
        Value::Int(number) => L::Number(number as f64),
        Value::BulkString(bytes) => L::String(lua.create_string(bytes)?),
        Value::Array(items) => {
            let items: mlua::Result<Vec<L>> = items.into_iter().map(|v| told(lua, v)).collect();
            L::Table(lua.create_sequence_from(items?)?)
        }
        _ => {
            let status = lua.create_table()?;
            status.set("ok", "OK")?;
            L::Table(status)
        }
    })
}

/// What a script returned, as Redis answers it.
fn answered(value: L) -> mlua::Result<Result<Value, String>> {
    Ok(Ok(match value {
        L::String(text) => Value::BulkString(text.as_bytes().to_vec()),
        L::Integer(number) => Value::Int(number),
        L::Number(number) => Value::Int(number as i64),
        L::Boolean(true) => Value::Int(1),
        L::Table(table) => {
            if let Some(error) = table.raw_get::<Option<String>>("err")? {
                return Ok(Err(error));
            }
            return items(&table);
        }
        _ => Value::Nil,
    }))
}

fn items(table: &Table) -> mlua::Result<Result<Value, String>> {
    let mut items = Vec::new();
    for at in 1.. {
        match table.raw_get::<L>(at)? {
            L::Nil => break,
            value => match answered(value)? {
                Ok(value) => items.push(value),
                Err(error) => return Ok(Err(error)),
            },
        }
    }
    Ok(Ok(Value::Array(items)))
}

pub type Values = MultiValue;
