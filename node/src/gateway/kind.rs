//! What a gateway is to the node: the trait that each implements.

use std::{
    collections::BTreeSet,
    io,
    marker::PhantomData,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::Path,
    sync::Arc,
};

use axum::Router;
use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use super::{
    context::Context,
    outbound::Outbound,
    supervisor::{Open, Opened, Signals},
    tls, with_causes,
};
use crate::{
    config::gateway::{Gateways as Config, TlsFiles},
    state::io::Gateway,
};

/// A gateway: its section of the configuration, how it is opened, and what is asked of it.
pub(super) trait Kind {
    /// Its name: on the command line, in the configuration, in metrics.
    const GATEWAY: Gateway;
    /// Its section of the configuration.
    type Settings: Clone + PartialEq + Send + Sync + 'static;
    /// Why it cannot be opened.
    type Error: std::error::Error;

    /// Returns its section.
    fn settings(config: &Config) -> &Self::Settings;

    /// Returns its section, to be changed.
    fn settings_mut(config: &mut Config) -> &mut Self::Settings;

    /// Says whether it is to be open.
    fn is_enabled(settings: &Self::Settings) -> bool;

    /// Returns what it takes from the machine while it is open.
    fn needs(settings: &Self::Settings) -> Needs;

    /// Opens it. May be called again after it failed or was stopped.
    fn open(
        settings: Self::Settings,
        context: Context,
        signals: Signals,
    ) -> impl Future<Output = Result<Opened, Self::Error>> + Send + 'static;

    /// Its connections to foreign servers; `()` if it has none.
    type Outbound: Outbound;

    /// Returns it, before anything is configured.
    fn outbound(context: Context) -> Self::Outbound;

    /// Returns what the control socket serves for it under `/v1/gateways/NAME`.
    fn routes(context: Context, outbound: Arc<Self::Outbound>) -> Router;
}

/// A [`Kind`] whose settings and errors nobody else has to know.
pub(super) trait Registered: Sync {
    fn gateway(&self) -> Gateway;

    /// Says whether two configurations are the same for it.
    fn is_same(&self, one: &Config, other: &Config) -> bool;

    /// Copies its section.
    fn copy(&self, from: &Config, to: &mut Config);

    /// Returns what it takes from the machine; nothing if it is not to be open.
    fn needs(&self, config: &Config) -> Needs;

    /// Returns what opens it, if it is to be open.
    fn opener(&self, config: &Config, context: &Context) -> Option<Open>;

    /// Returns what there is of it for as long as the node runs, open or not.
    fn attach(&self, context: &Context) -> Attached;
}

/// What there is of a gateway for as long as the node runs.
pub(super) struct Attached {
    pub(super) gateway: Gateway,
    pub(super) outbound: Arc<dyn Outbound>,
    /// Served under its name.
    pub(super) routes: Router,
}

/// A [`Kind`] in the list of gateways.
pub(super) struct Of<K>(PhantomData<fn() -> K>);

impl<K> Of<K> {
    pub(super) const NEW: Self = Self(PhantomData);
}

impl<K: Kind> Registered for Of<K> {
    fn gateway(&self) -> Gateway {
        K::GATEWAY
    }

    fn is_same(&self, one: &Config, other: &Config) -> bool {
        K::settings(one) == K::settings(other)
    }

    fn copy(&self, from: &Config, to: &mut Config) {
        K::settings_mut(to).clone_from(K::settings(from));
    }

    fn needs(&self, config: &Config) -> Needs {
        let settings = K::settings(config);
        if K::is_enabled(settings) {
            K::needs(settings)
        } else {
            Needs::default()
        }
    }

    fn opener(&self, config: &Config, context: &Context) -> Option<Open> {
        let (settings, context) = (K::settings(config).clone(), context.clone());
        K::is_enabled(&settings).then(|| {
            let open = move |signals: Signals| {
                let stop = signals.stop.clone();
                let opening = K::open(settings.clone(), context.clone(), signals);
                aside(stop, async move {
                    opening.await.map_err(|error| with_causes(&error))
                })
                .boxed()
            };
            Box::new(open) as Open
        })
    }

    fn attach(&self, context: &Context) -> Attached {
        let outbound = Arc::new(K::outbound(context.clone()));
        Attached {
            gateway: K::GATEWAY,
            routes: K::routes(context.clone(), Arc::clone(&outbound)),
            outbound,
        }
    }
}

/// Opens a gateway on a thread of its own: it reads files, on whatever disk they are, and may make keys,
/// and the node's loop waits for neither. A gateway that is to stop meanwhile is not waited for.
async fn aside(
    stop: CancellationToken,
    opening: impl Future<Output = Result<Opened, String>> + Send + 'static,
) -> Result<Opened, String> {
    let runtime = tokio::runtime::Handle::current();
    let opened = tokio::task::spawn_blocking(move || {
        runtime.block_on(async {
            tokio::select! {
                opened = opening => opened,
                () = stop.cancelled() => Err("it is to stop".to_owned()),
            }
        })
    });
    let ended = |error: tokio::task::JoinError| Err(format!("opening it ended: {error}"));
    opened.await.unwrap_or_else(ended)
}

/// What a gateway takes from the machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Needs {
    pub(super) tcp: Vec<SocketAddr>,
    pub(super) udp: Vec<SocketAddr>,
    pub(super) tls: Option<TlsFiles>,
}

impl Needs {
    /// Tries what a running gateway would take, before it is closed: its clients need not lose their
    /// connections for a mistake. Ports that are freed may be in use.
    pub(super) fn probe(
        &self,
        earlier: &Self,
        freed: &BTreeSet<u16>,
        home: &Path,
    ) -> Result<(), String> {
        let judge = |address: &SocketAddr, bound: io::Result<()>| match bound {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && freed.contains(&address.port()) =>
            {
                Ok(())
            }
            Err(error) => Err(format!("listen on {address}: {error}")),
            Ok(()) => Ok(()),
        };
        for address in self.tcp.iter().filter(|to| !earlier.tcp.contains(to)) {
            judge(address, TcpListener::bind(address).map(drop))?;
        }
        for address in self.udp.iter().filter(|to| !earlier.udp.contains(to)) {
            judge(address, UdpSocket::bind(address).map(drop))?;
        }
        if let Some(files) = &self.tls {
            tls::acceptor(files, home).map_err(|error| with_causes(&error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::REGISTRY, *};

    #[tokio::test]
    async fn a_gateway_whose_files_are_read_slowly_holds_up_nobody() {
        let (release, released) = std::sync::mpsc::channel();
        let opening = async move {
            // A disk that does not answer. The limit ends a test that failed.
            let answered = released.recv_timeout(Duration::from_secs(60));
            answered.map_err(|_| "nothing else went on".to_owned())?;
            Err("no such file".to_owned())
        };
        let slow = tokio::spawn(aside(CancellationToken::new(), opening));

        let others = tokio::spawn(async move { release.send(()) });

        others.await.expect("no panic").expect("it is waited for");
        let failed = slow.await.expect("no panic").err();
        assert_eq!(failed.as_deref(), Some("no such file"));
    }

    fn needs(tcp: &[SocketAddr], udp: &[SocketAddr]) -> Needs {
        Needs {
            tcp: tcp.to_vec(),
            udp: udp.to_vec(),
            tls: None,
        }
    }

    #[test]
    fn each_gateway_is_listed_once_and_is_off_unless_it_is_enabled() {
        let config = crate::Config::default().gateways;
        assert_eq!(REGISTRY.map(Registered::gateway), Gateway::ALL);
        for kind in REGISTRY {
            let Needs { tcp, udp, tls } = kind.needs(&config);
            assert!(tcp.is_empty() && udp.is_empty() && tls.is_none());
            assert!(kind.is_same(&config, &config));
        }
    }

    #[test]
    fn a_section_is_copied_whole_and_no_other_one() {
        let enabled =
            REGISTRY.map(|kind| format!("[gateway.{}]\nenabled = true\n", kind.gateway().name()));
        let changed = crate::Config::parse(&enabled.concat())
            .expect("legal")
            .gateways;
        for kind in REGISTRY {
            let mut config = crate::Config::default().gateways;
            assert!(!kind.is_same(&config, &changed));

            kind.copy(&changed, &mut config);

            for other in REGISTRY {
                let is_copied = other.gateway() == kind.gateway();
                assert_eq!(other.is_same(&config, &changed), is_copied);
            }
            assert!(!kind.needs(&config).tcp.is_empty(), "it listens somewhere");
        }
    }

    #[test]
    fn a_port_in_use_is_refused_unless_a_gateway_gives_it_back() {
        let (none, home) = (BTreeSet::new(), Path::new("/"));
        let tcp = TcpListener::bind("127.0.0.1:0").expect("binds");
        let tcp = (tcp.local_addr().expect("bound"), tcp);
        let udp = UdpSocket::bind("127.0.0.1:0").expect("binds");
        let udp = (udp.local_addr().expect("bound"), udp);
        let nothing = needs(&[], &[]);

        for wanted in [needs(&[tcp.0], &[]), needs(&[], &[udp.0])] {
            let refused = wanted.probe(&nothing, &none, home).expect_err("in use");
            assert!(refused.contains("in use"), "{refused}");
            let freed = [tcp.0.port(), udp.0.port()].into();
            assert_eq!(wanted.probe(&nothing, &freed, home), Ok(()));
            assert_eq!(wanted.probe(&wanted, &none, home), Ok(()), "it has them");
        }
    }

    #[test]
    fn certificates_that_cannot_be_read_are_refused() {
        let files = TlsFiles {
            certificate: "none.pem".into(),
            key: "none.pem".into(),
        };
        let wanted = Needs {
            tls: Some(files),
            ..needs(&[], &[])
        };

        let refused = wanted.probe(&needs(&[], &[]), &BTreeSet::new(), Path::new("/"));

        assert!(refused.expect_err("no file").contains("none.pem"));
    }
}
