//! How JSON spells what protobuf has numbers for.

use serde::Serializer;

use super::proto::DataType;
use super::proto::model_instance_group::Kind;

pub(super) fn data_type<S: Serializer>(value: &i32, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(DataType::try_from(*value).unwrap_or_default().as_str_name())
}

pub(super) fn instance_kind<S: Serializer>(value: &i32, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(Kind::try_from(*value).unwrap_or_default().as_str_name())
}
