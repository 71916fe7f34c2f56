// Package daemon keeps volumes mounted and sessions running, and answers an API
// on a unix socket: JSON over HTTP, used by the command line.
//
// What an operator asked for is in the session.Store before it is answered; the
// daemon makes it so, and again after its own death: it compares what is wanted
// with what is there and keeps no state of its own that matters.
//
// # Processes
//
// A mount is a process of its own (georep mount) that outlives the daemon; one
// that died is mounted again. A worker is a process of its own too (georep
// replicate), one per session and brick, so that the crash of one touches no
// other. It ends with the daemon: the kernel signals it when the daemon dies
// (PR_SET_PDEATHSIG), and its standard streams end. The next daemon starts it
// anew; it goes on from its stime. A worker that ended is started again after a
// wait that grows.
//
// # API
//
// Requests and answers are the types of package session and of this one. An
// error is a session.Error with a status: 400 usage, 404 not found, 409
// precondition, 408 timeout, 500 failed. GET /v1/events?follow=1 goes on with an
// event a line for as long as one listens.
package daemon
