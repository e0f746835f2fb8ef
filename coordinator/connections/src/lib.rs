//! Connections that come in: whose they are, how many each client may have, and who goes when there are too many.
//!
//! [`client_address`] says who a client is, [`shares`] divides permits among clients, [`listener`] takes connections for
//! which there is a permit, and [`descriptors`] keeps open files for everything else.

pub mod client_address;
pub mod descriptors;
pub mod listener;
pub mod shares;
