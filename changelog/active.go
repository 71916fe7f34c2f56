package changelog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ActiveSpan tells how far the index of a brick goes that is being recorded: the
// start of its active HTIME file and the last stamp in it, which is start when it
// has none. Both are 0 when there is no index. It costs a few system calls
// however long the index is.
func ActiveSpan(dir string) (start, end int64, err error) {
	name, start, err := activeName(dir)
	if err != nil || name == "" {
		return 0, 0, err
	}
	end, err = lastStamp(filepath.Join(dir, htimeDir, name))
	if err != nil {
		return 0, 0, fmt.Errorf("changelog: index: %w", err)
	}
	return start, max(start, end), nil
}

// activeName is the HTIME file that the xattr of the htime directory names, or
// else the last one; "" when there is none.
func activeName(dir string) (name string, start int64, err error) {
	buf := make([]byte, 256)
	htime := filepath.Join(dir, htimeDir)
	n, err := unix.Getxattr(htime, xattrCurrent, buf)
	if err == nil {
		name = string(buf[:n])
		start, ok := parseHTIMEName(name)
		if _, gone := os.Lstat(filepath.Join(htime, name)); ok && gone == nil {
			return name, start, nil
		}
	}
	if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOENT) {
		return "", 0, fmt.Errorf("changelog: index: %w", &fs.PathError{Op: "getxattr", Path: htime, Err: err})
	}
	starts, err := spanStarts(dir)
	if err != nil || len(starts) == 0 {
		return "", 0, err
	}
	start = starts[len(starts)-1]
	return fmt.Sprintf("%s%d", htimePrefix, start), start, nil
}

// lastStamp is the stamp of the last whole record of an HTIME file, 0 when there
// is none near its end.
func lastStamp(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	buf := make([]byte, min(st.Size(), 2*maxIndexPath))
	if _, err := f.ReadAt(buf, st.Size()-int64(len(buf))); err != nil {
		return 0, err
	}
	end := bytes.LastIndexByte(buf, 0)
	if end < 0 {
		return 0, nil
	}
	rec := string(buf[bytes.LastIndexByte(buf[:end], 0)+1 : end])
	stamp, _, _ := parseSealedBase(rec[strings.LastIndexByte(rec, '/')+1:])
	return stamp, nil
}

// spanStarts are the starts of the HTIME files, in order.
func spanStarts(dir string) ([]int64, error) {
	h, err := os.ReadDir(filepath.Join(dir, htimeDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("changelog: index: %w", err)
	}
	var starts []int64
	for _, e := range h { // sorted by name, and names have ten digits
		if start, ok := parseHTIMEName(e.Name()); ok {
			starts = append(starts, start)
		}
	}
	return starts, nil
}

// spanOf is the start of the span that a moment belongs to: the last that is not
// later; uncovered when all are.
func spanOf(dir string, stamp int64) (int64, error) {
	starts, err := spanStarts(dir)
	if err != nil {
		return 0, err
	}
	span := int64(uncovered)
	for _, s := range starts {
		if s <= stamp {
			span = max(span, s)
		}
	}
	return span, nil
}
