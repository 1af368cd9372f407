//! The loop: read, decide, append, dispatch; timers; owns the traits Store, Driver, Clock.
