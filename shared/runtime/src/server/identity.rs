//! Finds the principal of a request.
//!
//! A token is looked up once for each connection that sends it and then remembered beside its
//! header, until the token file changes: a request costs one comparison.

use std::{sync::Arc, time::Instant};

use arc_swap::ArcSwapOption;
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use jiff::Timestamp;
use subtle::ConstantTimeEq as _;

use super::admission::{Admission, Rate};
use crate::{
    auth::{self, Principal, Role, Table, Tokens},
    clock::SharedClock,
    status::{Failure, reason},
};

const BEARER: &[u8] = b"bearer ";

/// A principal and how much it may ask for.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) principal: Arc<Principal>,
    rate: Option<Arc<Rate>>,
}

impl Identity {
    fn new(principal: Arc<Principal>, admission: &Admission) -> Arc<Self> {
        let rate = admission.rate(&principal.subject);
        Arc::new(Self { principal, rate })
    }

    /// Counts a request of this principal, or refuses it.
    pub(super) fn count(&self, now: Instant) -> Result<(), Failure> {
        match &self.rate {
            Some(rate) => rate.check(&self.principal.subject, now),
            None => Ok(()),
        }
    }
}

/// How a node finds out who calls.
#[derive(Debug)]
pub(super) struct Authenticator {
    tokens: Option<Tokens>,
    certificates: bool,
    clock: SharedClock,
    /// Who calls where nobody has to say.
    anonymous: Arc<Identity>,
    /// Who calls what is open to all.
    nobody: Arc<Identity>,
}

/// What the certificate of a connection says.
#[derive(Debug)]
pub(super) enum Certificate {
    /// There is none.
    Absent,
    /// It names a principal.
    Known(Arc<Identity>),
    /// It names nobody, for this reason.
    Unknown(String),
}

/// What is remembered for one connection.
#[derive(Debug)]
pub(super) struct Caller {
    certificate: Certificate,
    last: ArcSwapOption<Remembered>,
}

#[derive(Debug)]
struct Remembered {
    header: HeaderValue,
    table: Arc<Table>,
    identity: Arc<Identity>,
}

impl Authenticator {
    pub(super) fn new(
        tokens: Option<Tokens>,
        certificates: bool,
        clock: SharedClock,
        admission: &Admission,
    ) -> Self {
        let nobody = Principal::new("nobody", Role::Viewer).shared();
        Self {
            tokens,
            certificates,
            clock,
            anonymous: Identity::new(Principal::anonymous().shared(), admission),
            nobody: Arc::new(Identity { principal: nobody, rate: None }),
        }
    }

    /// What to remember for a connection whose client showed the certificate `der`.
    pub(super) fn caller(&self, der: Option<&[u8]>, admission: &Admission) -> Caller {
        let certificate = match der {
            Some(der) if self.certificates => match auth::certificate::principal(der) {
                Ok(principal) => Certificate::Known(Identity::new(principal.shared(), admission)),
                Err(failure) => Certificate::Unknown(failure.message().to_owned()),
            },
            _ => Certificate::Absent,
        };
        Caller { certificate, last: ArcSwapOption::empty() }
    }

    /// Who calls, where it does not matter.
    pub(super) fn nobody(&self) -> Arc<Identity> {
        Arc::clone(&self.nobody)
    }

    /// Who sent a request with `headers` over the connection of `caller`.
    pub(super) fn identify(
        &self,
        caller: &Caller,
        headers: &HeaderMap,
        admission: &Admission,
    ) -> Result<Arc<Identity>, Failure> {
        if self.tokens.is_none() && !self.certificates {
            return Ok(Arc::clone(&self.anonymous));
        }
        let identity = match (headers.get(AUTHORIZATION), &self.tokens, &caller.certificate) {
            (Some(header), Some(tokens), _) => self.by_token(caller, header, tokens, admission)?,
            (Some(_), None, _) => {
                return Err(Failure::unauthenticated(
                    reason::TOKEN_INVALID,
                    "this node takes no bearer tokens, only client certificates",
                ));
            }
            (None, _, Certificate::Known(identity)) => Arc::clone(identity),
            (None, _, Certificate::Unknown(message)) => {
                return Err(Failure::unauthenticated(reason::CERTIFICATE_UNKNOWN, message.clone()));
            }
            (None, _, Certificate::Absent) => {
                return Err(Failure::unauthenticated(
                    reason::CREDENTIALS_MISSING,
                    "say who you are: send a bearer token or use a client certificate",
                ));
            }
        };
        if identity.principal.expires_at.is_some() && identity.principal.is_expired(self.now()) {
            return Err(auth::expired(&identity.principal));
        }
        Ok(identity)
    }

    fn by_token(
        &self,
        caller: &Caller,
        header: &HeaderValue,
        tokens: &Tokens,
        admission: &Admission,
    ) -> Result<Arc<Identity>, Failure> {
        let table = tokens.table();
        if let Some(last) = &*caller.last.load()
            && Arc::ptr_eq(&last.table, &table)
            && bool::from(last.header.as_bytes().ct_eq(header.as_bytes()))
        {
            return Ok(Arc::clone(&last.identity));
        }
        let bytes = header.as_bytes();
        let token = match bytes.split_at_checked(BEARER.len()) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(BEARER) => token.trim_ascii(),
            _ => {
                return Err(Failure::unauthenticated(
                    reason::TOKEN_INVALID,
                    "the authorization is not a bearer token; send \"authorization: Bearer <token>\"",
                ));
            }
        };
        let principal = table.find(token, self.now())?;
        let identity = Identity::new(principal, admission);
        caller.last.store(Some(Arc::new(Remembered {
            header: header.clone(),
            table: Arc::clone(&table),
            identity: Arc::clone(&identity),
        })));
        Ok(identity)
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
