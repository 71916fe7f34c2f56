// Package session keeps what an operator has set up and what became of it:
// volumes and their bricks, destinations, sessions with their configuration and
// checkpoints, the last status of each worker, samples of it, events, and the
// items in quarantine.
//
// A Store is one SQLite file in WAL mode. It is opened by one process at a time,
// the daemon, which holds a lock beside it. Tables are made and altered by
// numbered migrations; a file written by a newer georep is refused.
//
// # Promise
//
// A method that returned nil is durable: it survives the death of the process and
// of the host (synchronous=FULL). One that returned an error changed nothing: each
// is one transaction.
//
// # Errors
//
// What an operator can be at fault for is an [*Error], with its kind, and what to
// do about it.
package session
