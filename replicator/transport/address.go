package transport

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"strconv"
	"strings"
)

// Address says where a slave is.
type Address struct {
	User string // "" is root
	Host string // name or IP address, without brackets; "" is this host
	Port int    // 0 is 22
	Dir  string // absolute, clean
}

// ErrAddress is wrapped by the errors of ParseAddress.
var ErrAddress = errors.New("not an address of a slave")

// ParseAddress reads /dir, host:/dir, user@host:/dir or ssh://user@host:port/dir.
// IPv6 addresses stand in brackets. A directory is absolute; in an ssh:// one
// %xx stands for a byte.
func ParseAddress(s string) (Address, error) {
	fail := func(why string) (Address, error) {
		return Address{}, fmt.Errorf("transport: %q: %w: %s", s, ErrAddress, why)
	}
	var a Address
	var err error
	switch {
	case strings.HasPrefix(s, "/"):
		a.Dir = s
	case strings.HasPrefix(s, "ssh://"):
		if a, err = parseURL(s); err != nil {
			return fail(err.Error())
		}
	default:
		host, dir, ok := cutHost(s)
		if !ok {
			return fail("want /dir, host:/dir, user@host:/dir or ssh://user@host:port/dir")
		}
		if user, h, ok := strings.Cut(host, "@"); ok {
			if a.User, host = user, h; user == "" {
				return fail("no user before @")
			}
		}
		a.Host, a.Dir = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), dir
		if a.Host == "" {
			return fail("no host")
		}
	}
	switch {
	case !strings.HasPrefix(a.Dir, "/"):
		return fail("the directory must begin with /")
	case strings.Contains(a.Dir, "\x00"):
		return fail("NUL in the directory")
	case strings.HasPrefix(a.Host, "-") || strings.ContainsAny(a.Host, "/ \t\n@"):
		return fail("host")
	}
	a.Dir = path.Clean(a.Dir)
	return a, nil
}

// cutHost cuts [user@]host:dir at the colon that ends the host.
func cutHost(s string) (host, dir string, ok bool) {
	if i := strings.IndexByte(s, '['); i >= 0 && (i == 0 || s[i-1] == '@') {
		j := strings.Index(s, "]:")
		if j < i {
			return "", "", false
		}
		return s[:j+1], s[j+2:], true
	}
	return strings.Cut(s, ":")
}

func parseURL(s string) (Address, error) {
	u, err := url.Parse(s)
	if err != nil {
		return Address{}, err
	}
	a := Address{User: u.User.Username(), Host: u.Hostname(), Dir: u.Path}
	if _, has := u.User.Password(); has {
		return a, errors.New("a password has no place in it")
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return a, errors.New("write ? as %3F and # as %23")
	}
	if a.Host == "" {
		return a, errors.New("no host")
	}
	if p := u.Port(); p != "" {
		if a.Port, err = strconv.Atoi(p); err != nil || a.Port < 1 || a.Port > 65535 {
			return a, errors.New("port " + p)
		}
	}
	return a, nil
}

// IsLocal reports whether the slave is on this host.
func (a Address) IsLocal() bool { return a.Host == "" }

// String is the address in a form that ParseAddress reads.
func (a Address) String() string {
	if a.IsLocal() {
		return a.Dir
	}
	host := a.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if a.Port != 0 {
		u := url.URL{Scheme: "ssh", Host: net.JoinHostPort(a.Host, strconv.Itoa(a.Port)), Path: a.Dir}
		if a.User != "" {
			u.User = url.User(a.User)
		}
		return u.String()
	}
	if a.User != "" {
		host = a.User + "@" + host
	}
	return host + ":" + a.Dir
}

// hostPort is what to dial.
func (a Address) hostPort() string {
	port := a.Port
	if port == 0 {
		port = 22
	}
	return net.JoinHostPort(a.Host, strconv.Itoa(port))
}

func (a Address) user() string {
	if a.User == "" {
		return "root"
	}
	return a.User
}
