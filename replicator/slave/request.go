package slave

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
)

// ParseRequest reads the command line that a client asked sshd for, where a key's
// forced command runs `georep agent --root root` instead of it. Accepted are what
// our side sends: "georep agent --root DIR", DIR being root, and the same with an
// rsync server command behind it, which is returned. No shell is involved. The
// error wraps ErrRefused.
func ParseRequest(line, root string) (rsync []string, err error) {
	dir, rest, err := splitRequest(line)
	if err != nil {
		return nil, err
	}
	if filepath.Clean(dir) != filepath.Clean(root) {
		return nil, fmt.Errorf("slave: %w: the key is for %q, not for %q", ErrRefused, root, dir)
	}
	return rest, nil
}

// ParseRequestBelow is ParseRequest for a forced command that runs `georep agent
// --below dir`: DIR may be any directory in dir, and is returned as root, without
// symlinks. DIR may be missing, and so may directories between it and dir.
func ParseRequestBelow(line, dir string) (root string, rest []string, err error) {
	root, rest, err = splitRequest(line)
	if err != nil {
		return "", nil, err
	}
	below, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", nil, fmt.Errorf("slave: %w: the key is for what is in %q: %w", ErrRefused, dir, err)
	}
	root = filepath.Clean(root)
	real, missing := root, ""
	for there := root; ; there = filepath.Dir(there) {
		real, err = filepath.EvalSymlinks(there)
		if !errors.Is(err, fs.ErrNotExist) || there == filepath.Dir(there) {
			break
		}
		missing = filepath.Join(filepath.Base(there), missing)
	}
	if err != nil {
		return "", nil, fmt.Errorf("slave: %w: %w", ErrRefused, err)
	}
	// A symlink that leads nowhere does not count as missing: what is made is made
	// where it says, or not at all.
	real = filepath.Join(real, missing)
	if !filepath.IsAbs(root) || below != "/" && !strings.HasPrefix(real, below+"/") {
		return "", nil, fmt.Errorf("slave: %w: the key is for what is in %q, not for %q", ErrRefused, dir, root)
	}
	return real, rest, nil
}

// splitRequest takes "georep agent --root DIR …" apart.
func splitRequest(line string) (dir string, rest []string, err error) {
	words, err := splitWords(line)
	if err != nil {
		return "", nil, err
	}
	if len(words) < 4 || path.Base(words[0]) != "georep" || words[1] != "agent" || words[2] != "--root" {
		return "", nil, fmt.Errorf("slave: %w: %q: want georep agent --root DIR", ErrRefused, line)
	}
	if len(words) > 4 {
		rest = words[4:]
	}
	return words[3], rest, nil
}

// splitWords splits line as a POSIX shell does if it has nothing but plain
// characters, quotes '…' and backslashes. All else is refused.
func splitWords(line string) ([]string, error) {
	refuse := func(what string) ([]string, error) {
		return nil, fmt.Errorf("slave: %w: %s in %q", ErrRefused, what, line)
	}
	var words []string
	var word []byte
	in := false // a word has begun, which may be empty
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == ' ':
			if in {
				words = append(words, string(word))
				word, in = word[:0], false
			}
			continue
		case c == '\'':
			n := strings.IndexByte(line[i+1:], '\'')
			if n < 0 {
				return refuse("open quote")
			}
			word = append(word, line[i+1:i+1+n]...)
			i += n + 1
		case c == '\\':
			if i++; i == len(line) || line[i] == '\n' {
				return refuse("backslash at the end")
			}
			word = append(word, line[i])
		case c < ' ' || c == 0x7f || strings.IndexByte("\"$`;&|<>()*?[]{}#~!", c) >= 0:
			return refuse("character " + quote(string(c)))
		default:
			word = append(word, c)
		}
		in = true
	}
	if in {
		words = append(words, string(word))
	}
	return words, nil
}
