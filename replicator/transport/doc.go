// Package transport carries bytes between a worker and the host of its slave:
// one SSH connection for each worker, with channels for the agent and for each
// rsync.
//
// rsync gets to the slave through `georep rsh`, which [Shell] answers: rsync
// starts it as its remote shell, it hands its standard streams over a unix socket
// to the worker, and the worker joins them to a channel of its connection. So
// there is one login, one key exchange and one keepalive, whatever runs.
//
// # Host keys
//
// A host's key is pinned in a known_hosts file of our own. Of an unknown host
// Dial fails with an [UnknownHostError] that carries the fingerprint, unless
// Options.AcceptHostKey is that; of a host whose key changed it always fails,
// with a [ChangedHostError].
package transport
