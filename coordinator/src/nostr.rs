//! Relays, intake and publishing: the only place that knows relays.
