package transport

import (
	"errors"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]Address{
		"/srv/a b:c/":            {Dir: "/srv/a b:c"},
		"host:/srv":              {Host: "host", Dir: "/srv"},
		"u@host:/srv//x/../y":    {User: "u", Host: "host", Dir: "/srv/y"},
		"[fe80::1]:/srv":         {Host: "fe80::1", Dir: "/srv"},
		"u@[::1]:/srv":           {User: "u", Host: "::1", Dir: "/srv"},
		"ssh://host/srv":         {Host: "host", Dir: "/srv"},
		"ssh://u@host:2222/a%20": {User: "u", Host: "host", Port: 2222, Dir: "/a "},
		"ssh://[::1]:22/srv":     {Host: "::1", Port: 22, Dir: "/srv"},
	} {
		got, err := ParseAddress(in)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", in, got, err, want)
			continue
		}
		if again, err := ParseAddress(got.String()); err != nil || again != want {
			t.Errorf("%q printed as %q: %+v, %v", in, got.String(), again, err)
		}
	}
	for _, in := range []string{
		"", "host", "host:srv", ":/srv", "@host:/srv", "u@:/srv", "-oProxy:/srv", "ssh:///srv", "ssh://host", "ssh://host:0/srv",
		"ssh://host:99999/srv", "ssh://u:secret@host/srv", "ssh://host/srv?x", "/a\x00b", "[::1]/srv", "ho st:/srv",
	} {
		if a, err := ParseAddress(in); !errors.Is(err, ErrAddress) {
			t.Errorf("%q: %+v, %v, want ErrAddress", in, a, err)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"/srv", "u@host:/srv", "u@[::1]:/srv", "ssh://u@host:2222/a%20"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		if again, err := ParseAddress(a.String()); err != nil || again != a {
			t.Errorf("%q is %+v, printed as %q that is %+v, %v", s, a, a.String(), again, err)
		}
	})
}
