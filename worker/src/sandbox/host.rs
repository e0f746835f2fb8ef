//! Back end without isolation: processes of this machine.
