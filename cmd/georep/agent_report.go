package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// reportRequest is what a master asks of a key with `georep agent --below`, to
// know whether replication can work.
const reportRequest = "georep agent --report"

// hostReport is the answer, as JSON.
type hostReport struct {
	Version string            `json:"version"`
	Rsync   string            `json:"rsync"` // first line of rsync --version; "" if there is none
	Below   string            `json:"below"`
	Error   string            `json:"error,omitempty"` // why Below can't hold slaves
	Xattrs  map[string]string `json:"xattrs"`          // by namespace: "" if they can be set, else why not
	Size    uint64            `json:"size"`            // bytes, of the file system of Below
	Free    uint64            `json:"free"`
	Inodes  uint64            `json:"inodes"` // both 0 if there is no limit
	IFree   uint64            `json:"inodes_free"`
	Clock   time.Time         `json:"clock"`
}

// printReport looks at what a slave below the directory needs.
func printReport(w io.Writer, below, rsync string) error {
	r := hostReport{Version: buildVersion(), Below: below, Xattrs: map[string]string{}, Clock: time.Now()}
	if out, err := exec.Command(rsync, "--version").Output(); err == nil {
		r.Rsync, _, _ = strings.Cut(string(out), "\n")
	}
	if err := r.look(); err != nil {
		r.Error = err.Error()
	}
	return json.NewEncoder(w).Encode(&r)
}

func (r *hostReport) look() error {
	var st unix.Statfs_t
	if err := unix.Statfs(r.Below, &st); err != nil {
		return fmt.Errorf("%s: %w", r.Below, err)
	}
	r.Size, r.Free = st.Blocks*uint64(st.Frsize), st.Bfree*uint64(st.Frsize)
	r.Inodes, r.IFree = st.Files, st.Ffree
	dir, err := os.MkdirTemp(r.Below, ".georep-report-")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	for _, ns := range []string{"user", "trusted", "security"} {
		err := unix.Setxattr(dir, ns+".georep.report", []byte("x"), 0)
		if r.Xattrs[ns] = ""; err != nil {
			r.Xattrs[ns] = err.Error()
			if errors.Is(err, syscall.EOPNOTSUPP) {
				r.Xattrs[ns] += " (is the file system mounted without it?)"
			}
		}
	}
	return nil
}
