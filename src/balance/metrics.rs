//! The metrics of endpoints, as OpenMetrics text. Labels are bounded: backends and endpoints come from the configuration,
//! or from whoever it says knows where endpoints are.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::time::Instant;

use crate::balance::Group;
use crate::balance::endpoint::{Ejection, Endpoint};

/// Writes the metrics of these groups.
///
/// # Errors
/// Those of the encoder.
pub fn encode(groups: &[Arc<Group>], encoder: &mut DescriptorEncoder<'_>, now: Instant) -> fmt::Result {
    endpoints(
        groups,
        encoder,
        "sabir_endpoint_healthy",
        "Whether an endpoint takes calls.",
        |it| i64::from(it.is_healthy()),
    )?;
    endpoints(
        groups,
        encoder,
        "sabir_endpoint_inflight",
        "Calls under way at an endpoint.",
        |it| i64::try_from(it.in_flight()).unwrap_or(i64::MAX),
    )?;
    let mut family = encoder.encode_descriptor(
        "sabir_endpoint_calls",
        "Calls that began at an endpoint, those that could not be sent among them.",
        None,
        MetricType::Counter,
    )?;
    for group in groups {
        for member in group.members().list() {
            let labels = [
                ("backend", &**group.name()),
                ("endpoint", member.endpoint.label()),
            ];
            ConstCounter::new(member.endpoint.calls()).encode(family.encode_family(&labels)?)?;
        }
    }
    let mut family = encoder.encode_descriptor(
        "sabir_endpoint_ejections",
        "Times that an endpoint was taken out, by reason.",
        None,
        MetricType::Counter,
    )?;
    for group in groups {
        for member in group.members().list() {
            for why in Ejection::ALL {
                let labels = [
                    ("backend", &**group.name()),
                    ("endpoint", member.endpoint.label()),
                    ("reason", why.name()),
                ];
                let count = member.endpoint.ejections(why);
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
    }
    gauge(
        groups,
        encoder,
        "sabir_backend_panic",
        "Whether so few endpoints are healthy that all are called.",
        |it| Some(i64::from(it.panics())),
    )?;
    gauge(
        groups,
        encoder,
        "sabir_circuit_state",
        "What a circuit breaker does: 0 closed, 1 half open, 2 open.",
        |it| it.circuit(now).map(|circuit| i64::from(circuit.number())),
    )?;
    retries(groups, encoder)
}

fn endpoints(
    groups: &[Arc<Group>],
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    read: impl Fn(&Endpoint) -> i64,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for group in groups {
        for member in group.members().list() {
            let labels = [
                ("backend", &**group.name()),
                ("endpoint", member.endpoint.label()),
            ];
            ConstGauge::new(read(&member.endpoint)).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn gauge(
    groups: &[Arc<Group>],
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    read: impl Fn(&Group) -> Option<i64>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for group in groups {
        if let Some(value) = read(group) {
            let labels = [("backend", &**group.name())];
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn retries(groups: &[Arc<Group>], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut family = encoder.encode_descriptor(
        "sabir_retries",
        "Requests that were sent again, by reason.",
        None,
        MetricType::Counter,
    )?;
    for group in groups {
        for (why, count) in group.retries().counts() {
            let labels = [("backend", &**group.name()), ("reason", why.name())];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
    }
    let mut family = encoder.encode_descriptor(
        "sabir_retries_refused",
        "Requests that were not sent again for lack of budget.",
        None,
        MetricType::Counter,
    )?;
    for group in groups {
        let labels = [("backend", &**group.name())];
        ConstCounter::new(group.retries().refused()).encode(family.encode_family(&labels)?)?;
    }
    let mut family = encoder.encode_descriptor(
        "sabir_fallbacks",
        "Requests that another backend or a fixed answer answered.",
        None,
        MetricType::Counter,
    )?;
    for group in groups {
        for (by, count) in group.retries().instead() {
            let labels = [("backend", &**group.name()), ("by", by.name())];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}
