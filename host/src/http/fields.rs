//! A JSON object, or a form, whose fields are read one by one, so that a mistake is told with the field it
//! is in.
//!
//! Nothing is parsed before somebody asks for it: what a protocol does not know costs nothing.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{Error, Kind};

/// Fields of one object; protocols have some thirty, and a model some inputs beside them.
const MOST: usize = 1024;

/// Characters of a value that are shown where it is wrong.
const SHOWN_CHARS: usize = 40;

/// The fields of an object, each as it was written, or of a form, each as a JSON string.
#[derive(Debug, Default)]
pub struct Fields {
    values: BTreeMap<String, Box<RawValue>>,
    /// The file of a form.
    file: Option<Bytes>,
}

impl Fields {
    /// The fields of a form.
    ///
    /// # Errors
    /// [`Kind::BadRequest`] when there are too many.
    pub fn of_form(
        texts: impl IntoIterator<Item = (String, String)>,
        file: Option<Bytes>,
    ) -> Result<Self, Error> {
        let mut values = BTreeMap::new();
        for (name, text) in texts {
            let text = serde_json::value::to_raw_value(&text).expect("a string is always JSON");
            values.insert(name, text);
            if values.len() > MOST {
                return Err(Error::new(Kind::BadRequest, format!("more than {MOST} fields")));
            }
        }
        Ok(Self { values, file })
    }

    /// The file that came along.
    pub fn file(&self) -> Option<&Bytes> {
        self.file.as_ref()
    }

    /// Reads an object.
    ///
    /// # Errors
    /// [`Kind::BadRequest`] when it is none.
    pub fn read(json: &[u8]) -> Result<Self, Error> {
        let mut json = serde_json::Deserializer::from_slice(json);
        let read = json.deserialize_map(Object).and_then(|fields| json.end().map(|()| fields));
        read.map_err(|error| {
            Error::new(Kind::BadRequest, format!("the body is no JSON object: {error}"))
                .remedy("send a JSON object")
        })
    }

    /// The field as it was written; none if it is absent or null.
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|value| value.get()).filter(|value| *value != "null")
    }

    /// A field of a type; none if it is absent or null.
    ///
    /// # Errors
    /// [`Kind::BadRequest`] at the field when it is of another type.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        self.raw(name).map(|raw| parsed(name, raw)).transpose()
    }

    /// A field that has to be there.
    ///
    /// # Errors
    /// [`Kind::BadRequest`] at the field when it is not, or is of another type.
    pub fn required<T: DeserializeOwned>(&self, name: &str) -> Result<T, Error> {
        self.get(name)?.ok_or_else(|| wrong(name, format!("{name:?} is missing")))
    }

    /// A number of a range.
    ///
    /// # Errors
    /// [`Kind::BadRequest`] at the field when it is none.
    pub fn number(&self, name: &str, least: f64, most: f64) -> Result<Option<f64>, Error> {
        let number = self.get::<f64>(name)?;
        match number.filter(|number| !(least..=most).contains(number)) {
            None => Ok(number),
            Some(other) => {
                Err(wrong(name, format!("{name:?} is {other}; it goes from {least} to {most}")))
            }
        }
    }

    /// An integer of at least `least`.
    ///
    /// # Errors
    /// [`Kind::BadRequest`] at the field when it is none.
    pub fn integer(&self, name: &str, least: i64) -> Result<Option<i64>, Error> {
        let number = self.get::<i64>(name)?;
        match number.filter(|number| *number < least) {
            None => Ok(number),
            Some(other) => Err(wrong(name, format!("{name:?} is {other}; the least is {least}"))),
        }
    }

    /// The names of the fields that are there and not null.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str).filter(|name| self.raw(name).is_some())
    }
}

/// A value in JSON as a type.
///
/// # Errors
/// [`Kind::BadRequest`] at `place` when it is of another type.
pub fn parsed<'a, T: Deserialize<'a>>(place: &str, json: &'a str) -> Result<T, Error> {
    serde_json::from_str(json).map_err(|error| {
        let shown: String = json.chars().take(SHOWN_CHARS).collect();
        wrong(place, format!("{shown} cannot be taken for {place:?}: {error}"))
    })
}

/// The caller's mistake in a field.
pub fn wrong(place: impl Into<String>, message: impl Into<String>) -> Error {
    Error::new(Kind::BadRequest, message.into()).at(place)
}

struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut values = BTreeMap::new();
        while let Some((name, value)) = map.next_entry()? {
            values.insert(name, value);
            if values.len() > MOST {
                return Err(A::Error::custom(format!("more than {MOST} fields")));
            }
        }
        Ok(Fields { values, file: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_told_with_its_field() {
        let fields = Fields::read(br#"{"a": 1, "b": "x", "c": null, "d": [1, 2]}"#).unwrap();
        assert_eq!(fields.get::<i64>("a").unwrap(), Some(1));
        assert_eq!(fields.get::<String>("c").unwrap(), None);
        assert_eq!(fields.names().collect::<Vec<_>>(), ["a", "b", "d"]);
        let place = |error: Error| error.body().place.unwrap().to_owned();
        assert_eq!(place(fields.get::<i64>("b").unwrap_err()), "b");
        assert_eq!(place(fields.required::<i64>("e").unwrap_err()), "e");
        assert_eq!(place(fields.number("a", 2.0, 3.0).unwrap_err()), "a");
        assert_eq!(place(fields.integer("a", 2).unwrap_err()), "a");
    }

    #[test]
    fn fields_of_a_form_are_texts_and_bounded() {
        let texts = |count: usize| (0..count).map(|n| (n.to_string(), format!("\"{n}")));
        let fields = Fields::of_form(texts(3), Some(Bytes::from_static(b"RIFF"))).unwrap();
        assert_eq!(fields.get::<String>("2").unwrap().as_deref(), Some("\"2"));
        assert_eq!(fields.file().unwrap(), "RIFF");
        assert_eq!(Fields::of_form(texts(MOST + 1), None).unwrap_err().kind(), Kind::BadRequest);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for json in [&b""[..], b"[]", b"{", b"{} {}", b"\"a\"", b"{\"a\":nul}", b"\xff"] {
            assert_eq!(Fields::read(json).unwrap_err().kind(), Kind::BadRequest);
        }
        let many: Vec<_> = (0..=MOST).map(|n| format!("\"{n}\":0")).collect();
        let error = Fields::read(format!("{{{}}}", many.join(",")).as_bytes()).unwrap_err();
        assert!(error.text().contains("more than 1024 fields"), "{error}");
    }
}
