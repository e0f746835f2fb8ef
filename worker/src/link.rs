//! One session with a coordinator: register, accept, renew, report, resume.
