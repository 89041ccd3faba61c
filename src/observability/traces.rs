//! Traces: one span for each request, sent to a collector in the protocol of OpenTelemetry (OTLP over HTTP).
//!
//! A span is made when its request has ended, so a request carries nothing but its parent. The library collects spans in a
//! queue with a limit. Its thread sends them in batches, so a collector that does not answer delays no request: when the
//! queue is full, spans are lost.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{
    Link, Span, SpanBuilder, SpanKind, Status, TraceContextExt, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider, SpanData, SpanExporter,
};
use reqwest::redirect::Policy;
use reqwest::{Client, Proxy};
use tokio::runtime::Handle;
use tokio_util::context::TokioContext;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::build_info::VERSION;
use crate::clock::Clock;
use crate::outgoing::{Proxies, certificates};

/// How many spans wait at most. One takes about 2 kB, because the texts in it are cut.
const QUEUE_SPANS_MAX: usize = 2_048;

/// How many spans are sent together at most.
const BATCH_SPANS_MAX: usize = 512;

/// How often spans are sent that are fewer.
const BATCH_INTERVAL: Duration = Duration::from_secs(5);

/// How long sending a batch may take, retries included.
const EXPORT_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a stop waits for the last spans. Open requests may have taken 25 s of Heroku's 30 s before.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(3);

/// The longest `traceparent` that is read. Version 00 of it has 55 bytes.
const TRACEPARENT_BYTES_MAX: usize = 128;

/// The header with the parent of a request's span, see <https://www.w3.org/TR/trace-context/>.
const TRACEPARENT: &str = "traceparent";

/// What the mirror is called unless a setting says otherwise.
const SERVICE_NAME: &str = "crates-io-mirror";

/// Where spans are sent.
#[derive(Clone, Debug)]
pub(crate) struct TraceSettings {
    /// The URL that takes spans. It contains no credentials.
    pub(crate) endpoint: Url,
    /// What the mirror is called (`OTEL_SERVICE_NAME`).
    pub(crate) service_name: Option<String>,
}

/// Takes spans. Cloning copies reference counts.
#[derive(Clone, Debug)]
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    clock: Clock,
    give_up: CancellationToken,
}

/// A request that has ended.
#[derive(Debug)]
pub(crate) struct Ended<'r> {
    /// What [`Traces::named_by`] returned for it.
    pub(crate) named: &'r Context,
    /// Whether a trusted proxy has sent that.
    pub(crate) is_trusted: bool,
    /// The name of the span.
    pub(crate) name: String,
    /// How long it took until now.
    pub(crate) took: Duration,
    /// Whether the mirror failed.
    pub(crate) has_failed: bool,
    /// What else is known.
    pub(crate) attributes: Vec<KeyValue>,
}

impl Traces {
    /// Starts the thread that sends spans. Must be called inside a runtime.
    ///
    /// # Errors
    /// If the library cannot be set up, for example because of a variable that it reads itself.
    pub(crate) fn start(
        settings: &TraceSettings,
        proxies: &Proxies,
        clock: Clock,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let client = certificates::build(|| {
            let proxies = proxies.clone();
            Client::builder()
                .proxy(Proxy::custom(move |url| proxies.of(url).cloned()))
                .timeout(EXPORT_TIME_MAX)
                .redirect(Policy::none())
        })?;
        let otlp = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(settings.endpoint.as_str())
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(EXPORT_TIME_MAX)
            .build()?;
        let give_up = CancellationToken::new();
        let exporter = Exporter {
            otlp,
            runtime: Handle::current(),
            give_up: give_up.clone(),
            is_failing: AtomicBool::new(false),
        };
        let limits = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_SPANS_MAX)
            .with_max_export_batch_size(BATCH_SPANS_MAX)
            .with_scheduled_delay(BATCH_INTERVAL)
            .build();
        let service_name = settings.service_name.as_deref().unwrap_or(SERVICE_NAME);
        let resource = Resource::builder()
            .with_service_name(service_name.to_owned())
            .with_attribute(KeyValue::new("service.version", VERSION))
            .build();
        let processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(limits)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_span_processor(processor)
            .build();
        tracing::info!(endpoint = %settings.endpoint, "traces are sent");
        Ok(Self {
            tracer: provider.tracer(SERVICE_NAME),
            provider,
            clock,
            give_up,
        })
    }

    /// The span that a request names in its headers.
    pub(crate) fn named_by(headers: &HeaderMap) -> Context {
        TraceContextPropagator::new().extract_with_context(&Context::new(), &Traceparent(headers))
    }

    /// Takes the span of a request. Never waits.
    ///
    /// The parent of a span decides whether it is sampled. So only a trusted proxy names the parent: others could have all
    /// their requests sampled, or none. What they name becomes a link of a new trace, as for any public endpoint
    /// (<https://www.w3.org/TR/trace-context/#privacy-considerations>).
    pub(crate) fn record(&self, ended: Ended<'_>) {
        let now = self.clock.now();
        let nobody = Context::new();
        let named = ended.named.span().span_context().clone();
        let (parent, links) = match ended.is_trusted {
            true => (ended.named, Vec::new()),
            false if named.is_valid() => (&nobody, vec![Link::with_context(named)]),
            false => (&nobody, Vec::new()),
        };
        let mut span = SpanBuilder::from_name(ended.name)
            .with_kind(SpanKind::Server)
            .with_start_time(now.checked_sub(ended.took).unwrap_or(now))
            .with_attributes(ended.attributes)
            .with_links(links)
            .start_with_context(&self.tracer, parent);
        if ended.has_failed {
            span.set_status(Status::error(""));
        }
        span.end_with_timestamp(now);
    }

    /// Sends the last spans, and ends the thread that sends them.
    pub(crate) async fn stop(self) {
        let give_up = self.give_up.clone();
        // Once nothing is sent any more, the thread ends at once. The time-out of the library would leave it behind.
        let stopping = tokio::task::spawn_blocking(move || {
            self.provider.shutdown_with_timeout(2 * FLUSH_TIME_MAX)
        });
        let mut stopping = std::pin::pin!(stopping);
        let stopped = match tokio::time::timeout(FLUSH_TIME_MAX, &mut stopping).await {
            Ok(stopped) => stopped,
            Err(_elapsed) => {
                give_up.cancel();
                stopping.await
            }
        };
        if !matches!(stopped, Ok(Ok(()))) {
            tracing::warn!("the last spans were not sent");
        }
    }
}

/// Reads no other header: `tracestate` can be long, and nothing here needs it.
struct Traceparent<'h>(&'h HeaderMap);

impl Extractor for Traceparent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let value = (key == TRACEPARENT).then(|| self.0.get(TRACEPARENT))??;
        let text = value.to_str().ok()?;
        (text.len() <= TRACEPARENT_BYTES_MAX).then_some(text)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

/// Sends spans from the library's thread, with the HTTP client of the mirror's runtime.
#[derive(Debug)]
struct Exporter {
    otlp: opentelemetry_otlp::SpanExporter,
    runtime: Handle,
    /// When this is cancelled, nothing more is sent.
    give_up: CancellationToken,
    /// So that the log tells of a change, not of each batch.
    is_failing: AtomicBool,
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        // The client's sockets and time-outs belong to the runtime, which the library's thread is not part of.
        let sending = async {
            tokio::select! {
                biased;
                () = self.give_up.cancelled() => Err(OTelSdkError::AlreadyShutdown),
                sent = tokio::time::timeout(EXPORT_TIME_MAX, self.otlp.export(batch)) => {
                    sent.unwrap_or(Err(OTelSdkError::Timeout(EXPORT_TIME_MAX)))
                }
            }
        };
        let sent = TokioContext::new(sending, self.runtime.clone()).await;
        let was_failing = self.is_failing.swap(sent.is_err(), Ordering::Relaxed);
        match &sent {
            Err(error) if !was_failing => {
                tracing::warn!(spans, %error, "spans cannot be sent, and are lost until they can");
            }
            Ok(()) if was_failing => tracing::info!(spans, "spans are sent again"),
            Ok(()) | Err(_) => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_span_is_read_from_a_valid_traceparent_and_from_nothing_else() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let of = |value: &str| {
            let headers: HeaderMap = [(
                TRACEPARENT.parse::<axum::http::HeaderName>().unwrap(),
                value.parse().unwrap(),
            )]
            .into_iter()
            .collect();
            Traces::named_by(&headers).span().span_context().clone()
        };
        assert_eq!(of(good).span_id().to_string(), "b7ad6b7169203331");
        assert!(of(good).is_sampled() && of(good).is_remote());
        let long = format!("01{}-{}", good.trim_start_matches("00"), "x".repeat(60_000));
        let dashes = "-".repeat(60_000);
        for bad in [
            "",
            "x",
            "00-00-00-00",
            good.trim_end_matches("-01"),
            &dashes,
            &long,
        ] {
            assert!(!of(bad).is_valid(), "{bad}");
        }
        assert!(
            !Traces::named_by(&HeaderMap::new())
                .span()
                .span_context()
                .is_valid()
        );
    }
}
