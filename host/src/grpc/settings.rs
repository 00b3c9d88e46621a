//! Log and trace settings over gRPC: the same as over REST, in messages of their own.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Call;
use super::proto::{
    LogSettingsRequest, LogSettingsResponse, TraceSettingRequest, TraceSettingResponse,
    log_settings_request, log_settings_response, trace_setting_response,
};
use crate::error::Error;
use crate::logging::LogSettings;

pub(super) fn log(call: &Call, request: LogSettingsRequest) -> Result<LogSettingsResponse, Error> {
    use log_settings_request::setting_value::ParameterChoice;
    let value = |choice| match choice {
        ParameterChoice::BoolParam(value) => Value::from(value),
        ParameterChoice::Uint32Param(value) => Value::from(value),
        ParameterChoice::StringParam(value) => Value::from(value),
    };
    let changes: Map<_, _> = request
        .settings
        .into_iter()
        .filter_map(|(name, setting)| Some((name, value(setting.parameter_choice?))))
        .collect();
    if !changes.is_empty() {
        call.host.check_client_control()?;
    }
    Ok(log_message(&call.host.logging().change(&changes)?))
}

fn log_message(settings: &LogSettings) -> LogSettingsResponse {
    use log_settings_response::SettingValue;
    use log_settings_response::setting_value::ParameterChoice;
    let flag = ParameterChoice::BoolParam;
    let text = |text: &str| ParameterChoice::StringParam(text.to_owned());
    let settings = [
        ("log_file", text(settings.log_file)),
        ("log_info", flag(settings.log_info)),
        ("log_warning", flag(settings.log_warning)),
        ("log_error", flag(settings.log_error)),
        ("log_verbose_level", ParameterChoice::Uint32Param(settings.log_verbose_level)),
        ("log_format", text(settings.log_format)),
    ];
    let settings = settings
        .into_iter()
        .map(|(name, choice)| (name.to_owned(), SettingValue { parameter_choice: Some(choice) }));
    LogSettingsResponse { settings: settings.collect() }
}

pub(super) fn trace(
    call: &Call,
    request: TraceSettingRequest,
) -> Result<TraceSettingResponse, Error> {
    let TraceSettingRequest { settings, model_name } = request;
    let called = match &*model_name {
        "" => None,
        name => Some(call.find(name, "")?),
    };
    let model = called.as_ref().map(|called| &called.model.name);
    let changes: BTreeMap<String, Vec<String>> =
        settings.into_iter().map(|(name, setting)| (name, setting.value)).collect();
    if !changes.is_empty() {
        call.host.check_client_control()?;
    }
    let now = call.host.tracing().change(model, &changes)?;
    let value = |value| trace_setting_response::SettingValue { value };
    let settings = [
        ("trace_level", now.trace_level),
        ("trace_rate", vec![now.trace_rate]),
        ("trace_count", vec![now.trace_count]),
        ("log_frequency", vec![now.log_frequency]),
        ("trace_file", vec![now.trace_file]),
        ("trace_mode", vec![now.trace_mode]),
    ];
    let settings = settings.into_iter().map(|(name, values)| (name.to_owned(), value(values)));
    Ok(TraceSettingResponse { settings: settings.collect() })
}
