package brick

import (
	"encoding/hex"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

func TestGFID2PathGolden(t *testing.T) {
	for _, p := range golden(t, "gfid2path.txt") {
		want, err := hex.DecodeString(p[1])
		check(t, err)
		parent, base, err := ParseGFID2Path(want)
		check(t, err)
		key, value := GFID2Path(parent, base)
		if diff := cmp.Diff([]string{"trusted.gfid2path." + p[0], string(want)}, []string{key, string(value)}); diff != "" {
			t.Errorf("gfid2path of %v/%q (-want +got):\n%s", parent, base, diff)
		}
	}
}

func TestParseGFID2PathRefuses(t *testing.T) {
	for _, v := range []string{"", "/", "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000001/",
		"00000000-0000-0000-0000-00000000000x/a", "00000000-0000-0000-0000-000000000001a/",
		"00000000-0000-0000-0000-000000000001/..", "00000000-0000-0000-0000-000000000001/a/b"} {
		if parent, base, err := ParseGFID2Path([]byte(v)); err == nil {
			t.Errorf("%q reads as %v/%q", v, parent, base)
		}
	}
}

// The values are those of GlusterFS 10.3's golden brick.
func TestKeys(t *testing.T) {
	vol := uuid.MustParse("d777fbee-47a0-4e3e-9992-d6b23f7ce618")
	slave := uuid.MustParse("5f21b6c0-0000-4000-8000-000000000001")
	got := []string{XtimeKey(vol), StimeKey(vol, slave), EntryStimeKey(vol, slave)}
	want := []string{
		"trusted.glusterfs.d777fbee-47a0-4e3e-9992-d6b23f7ce618.xtime",
		"trusted.glusterfs.d777fbee-47a0-4e3e-9992-d6b23f7ce618.5f21b6c0-0000-4000-8000-000000000001.stime",
		"trusted.glusterfs.d777fbee-47a0-4e3e-9992-d6b23f7ce618.5f21b6c0-0000-4000-8000-000000000001.entry_stime",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	for _, attr := range append(got, XattrGFID, XattrVolumeID, XattrVolumeMark, "trusted.gfid2path.00ab69e4b0da348b") {
		if !IsInternal(attr) {
			t.Errorf("%s is shown to users", attr)
		}
	}
	for _, attr := range []string{"user.trusted.gfid", "trusted.gfids", "trusted.x", "security.selinux", "system.posix_acl_access"} {
		if IsInternal(attr) {
			t.Errorf("%s is kept from users", attr)
		}
	}
}

func TestStamp(t *testing.T) {
	raw, err := hex.DecodeString("6b01050500003e96")
	check(t, err)
	s, err := ParseStamp(raw)
	check(t, err)
	if want := (Stamp{Sec: 1795228933, Usec: 16022}); s != want {
		t.Errorf("%x reads as %v, want %v", raw, s, want)
	}
	if diff := cmp.Diff(raw, s.Bytes()); diff != "" {
		t.Errorf("stamp (-want +got):\n%s", diff)
	}
	if got := s.String(); got != "1795228933.016022" {
		t.Errorf("String = %s", got)
	}
	if got := StampOf(time.Unix(5, 1999)); got != (Stamp{5, 1}) {
		t.Errorf("StampOf rounds to %v, want down", got)
	}
	if got := StampOf(s.Time()); got != s {
		t.Errorf("%v becomes %v as a time", s, got)
	}
	for _, c := range []struct {
		a, b Stamp
		want int
	}{{Stamp{1, 9}, Stamp{2, 0}, -1}, {Stamp{2, 1}, Stamp{2, 1}, 0}, {Stamp{2, 2}, Stamp{2, 1}, 1}, {Stamp{}, s, -1}} {
		if got := c.a.Compare(c.b); got != c.want {
			t.Errorf("%v compared with %v is %d, want %d", c.a, c.b, got, c.want)
		}
	}
	if _, err := ParseStamp(raw[:7]); err == nil {
		t.Error("a stamp of 7 bytes is read")
	}
}

func TestVolumeMark(t *testing.T) {
	m := VolumeMark{Volume: uuid.MustParse("d777fbee-47a0-4e3e-9992-d6b23f7ce618"), Reset: Stamp{1795228773, 16022}}
	const want = "0100" + "d777fbee47a04e3e9992d6b23f7ce618" + "00" + "6b010465" + "00003e96"
	if got := hex.EncodeToString(m.Bytes()); got != want {
		t.Errorf("mark is %s, want %s", got, want)
	}
}
