// Package bench measures what recording costs.
//
// A Workload is a chain of steps on a tree of its own: create files, stat them,
// overwrite them, … Every target, a bare directory or something mounted on one,
// runs the same chain; [Overhead] runs the targets interleaved, A B C C B A, for
// several rounds after a warm-up, so that a machine that slows down slows all of
// them down. A figure is never a time but a ratio to the bare directory of the
// same round; a row tells the median of the rounds and their smallest and largest.
//
// # Promise
//
// A figure stands for work that was done. After the clock has stopped, each step
// looks on the brick, beneath the mount, for what it did, and reads the brick's
// changelogs for the records that it must have left: neither fewer nor others. A
// step whose check fails is reported as failed, without a figure.
//
// # What is measured
//
// Wall time of the step, by threads that sleep in the kernel alone; CPU time, user
// and system, of these threads and of the process that serves the mount, until
// what the step left behind is flushed and its changelog sealed. CPU seconds vary
// less than wall time on a machine that others use too, and how much of it they
// used meanwhile is in the report.
package bench
