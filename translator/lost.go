package translator

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
)

// reapLostHandles removes, while the brick is served, the handles of files whose
// last name was gone before: a loss of power turned back what said so, and they
// would take space for ever. That nobody can reach them is seen by this: one
// link, not known to the kernel, and unchanged since this life began.
func (t *Translator) reapLostHandles(ctx context.Context) {
	buf := make([]byte, direntBuffer)
	reaped := 0
	for i := range 1 << 16 {
		if ctx.Err() != nil {
			return // the next unclean start, or georep brick check, goes on
		}
		fd, errno := brick.Openat(t.b.Handles(), fmt.Sprintf("%02x/%02x", i>>8, i&0xff), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if errno != 0 {
			continue // most are not there
		}
		for {
			n, err := unix.Getdents(fd, buf)
			if err != nil || n == 0 {
				break
			}
			for rest := buf[:n]; len(rest) > 0; {
				var e Dirent
				rest = rest[e.parse(rest):]
				if g, err := gfid.Parse(string(e.Name)); err == nil && t.reapIfLost(g) {
					reaped++
				}
			}
		}
		brick.Close(fd)
	}
	t.opts.Logger.Info("looked for files whose last name was gone when power was lost", "removed", reaped)
}

// reapIfLost removes g's handle if nobody can reach it.
func (t *Translator) reapIfLost(g gfid.GFID) bool {
	var st Attr
	if t.b.StatHandle(g, &st) != 0 || st.Nlink != 1 || nanos(st.Ctime) >= t.clock.began || t.table.findGFID(g) != nil {
		return false
	}
	return t.removeOrphan(g)
}
