//! Serves the router on each connection, and ends those whose client takes its time.

use std::time::Duration;

use axum::{Router, serve::Listener};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};

use super::limit::Limited;

/// How long a client may take to say what it wants: for its first request, and on a connection that
/// is kept open for the next one. A request that waits holds one of few places.
pub(super) const HEAD_TIME: Duration = Duration::from_secs(10);

/// Serves until the task is dropped.
pub(super) async fn serve<L: Listener>(mut listener: Limited<L>, router: Router) {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    loop {
        let (stream, _) = listener.accept().await;
        let service = TowerToHyperService::new(router.clone());
        let connection = http.serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::trace!(%error, "a control connection ended");
            }
        });
    }
}
