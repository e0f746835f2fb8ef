//! Which queued job goes to which worker: fit, fairness, reasons. Pure.
