package slave

// Shell is how rsync gets to the slave's host: it runs Command with a host name
// and the remote command line as further arguments.
type Shell struct {
	Command string // rsync's -e, quoted as rsync wants it
	Agent   string // how georep agent is called there, with its --root: rsync's --rsync-path up to "rsync"
}

// RsyncOptions are what a run of rsync may be told.
type RsyncOptions struct {
	BWLimit   int64 // KiB/s; 0 is no limit
	WholeFile bool  // send files whole instead of finding what changed
}

// handlesToken stands for the slave's directory of handles in the command line
// that reaches the agent, which knows the path.
const handlesToken = "handles"
