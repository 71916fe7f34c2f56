package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/georep/georep/brick"
)

// errDiffers is a slave that is not as its master.
var errDiffers = errors.New("master and slave differ")

// sameStat tells how a and b differ in what lstat tells of them. With roughDirs the
// times of directories may differ by parts of a second: rsync leaves them so.
func sameStat(a, b string, roughDirs bool) error {
	sa, aerr := os.Lstat(a)
	sb, berr := os.Lstat(b)
	if errors.Is(aerr, fs.ErrNotExist) && errors.Is(berr, fs.ErrNotExist) {
		return nil
	}
	if err := errors.Join(aerr, berr); err != nil {
		return err
	}
	ua, ub := sa.Sys().(*syscall.Stat_t), sb.Sys().(*syscall.Stat_t)
	switch {
	case sa.Mode() != sb.Mode():
		return fmt.Errorf("%w: %q has mode %v, %q %v", errDiffers, a, sa.Mode(), b, sb.Mode())
	case ua.Uid != ub.Uid || ua.Gid != ub.Gid:
		return fmt.Errorf("%w: %q is of %d:%d, %q of %d:%d", errDiffers, a, ua.Uid, ua.Gid, b, ub.Uid, ub.Gid)
	case !sa.IsDir() && sa.Size() != sb.Size():
		return fmt.Errorf("%w: %q has %d bytes, %q %d", errDiffers, a, sa.Size(), b, sb.Size())
	case roughDirs && sa.IsDir() && sa.ModTime().Unix() == sb.ModTime().Unix():
	case !sa.ModTime().Equal(sb.ModTime()):
		return fmt.Errorf("%w: %q is of %v, %q of %v", errDiffers, a, sa.ModTime(), b, sb.ModTime())
	}
	return nil
}

// sameTree tells how the trees below a and b differ, in names, attributes or
// contents; roughDirs as in sameStat. The brick's own directory is left out.
func sameTree(a, b string, roughDirs bool) error {
	count := 0
	ba, bb := make([]byte, contentSize), make([]byte, contentSize)
	err := walkNames(a, func(rel string, d fs.DirEntry) error {
		count++
		pa, pb := filepath.Join(a, rel), filepath.Join(b, rel)
		if rel != "." {
			if err := sameStat(pa, pb, roughDirs); err != nil {
				return err
			}
		}
		if d.Type().IsRegular() {
			return sameContent(pa, pb, ba, bb)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return walkNames(b, func(rel string, _ fs.DirEntry) error {
		count--
		if count < 0 {
			return fmt.Errorf("%w: %q is on the slave only, or another name is", errDiffers, rel)
		}
		return nil
	})
}

func walkNames(root string, fn func(rel string, d fs.DirEntry) error) error {
	return filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == brick.Dir && filepath.Dir(p) == filepath.Clean(root) {
			return filepath.SkipDir
		}
		return fn("."+strings.TrimPrefix(p, root), d)
	})
}

// sameContent compares two files by way of two buffers of the same size.
func sameContent(a, b string, ba, bb []byte) error {
	fa, err := os.Open(a)
	if err != nil {
		return err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return err
	}
	defer fb.Close()
	for off := int64(0); ; {
		na, erra := io.ReadFull(fa, ba)
		nb, errb := io.ReadFull(fb, bb)
		if !bytes.Equal(ba[:na], bb[:nb]) {
			return fmt.Errorf("%w: contents of %q and %q after byte %d", errDiffers, a, b, off)
		}
		off += int64(na)
		switch {
		case erra == io.EOF || erra == io.ErrUnexpectedEOF:
			return nil
		case erra != nil || errb != nil:
			return errors.Join(erra, errb)
		}
	}
}
