package gfid

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
)

func TestParse(t *testing.T) {
	const text = "d777fbee-47a0-4e3e-9992-d6b23f7ce618"
	want := GFID{0xd7, 0x77, 0xfb, 0xee, 0x47, 0xa0, 0x4e, 0x3e, 0x99, 0x92, 0xd6, 0xb2, 0x3f, 0x7c, 0xe6, 0x18}
	for _, s := range []string{text, strings.ToUpper(text)} {
		if g, err := Parse(s); err != nil || g != want {
			t.Errorf("Parse(%s) = %v, %v", s, g, err)
		}
	}
	if got := want.String(); got != text {
		t.Errorf("String = %s, want %s", got, text)
	}
	if got := Root.String(); got != "00000000-0000-0000-0000-000000000001" {
		t.Errorf("the root is %s", got)
	}
	for _, s := range []string{"", text[:35], text + "0", strings.ReplaceAll(text, "-", ""), "{" + text + "}",
		"urn:uuid:" + text, strings.Replace(text, "d777", "g777", 1), strings.Replace(text, "-", "0", 1)} {
		if g, err := Parse(s); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", s, g)
		}
	}
	for _, n := range []int{0, 15, 17} {
		if g, err := FromBytes(make([]byte, n)); err == nil {
			t.Errorf("FromBytes of %d bytes = %v, want an error", n, g)
		}
	}
	if g, err := FromBytes(want[:]); err != nil || g != want {
		t.Errorf("FromBytes = %v, %v", g, err)
	}
}

func TestJSON(t *testing.T) {
	g := (&Source{}).Next()
	b, err := json.Marshal(map[string]GFID{"g": g})
	if err != nil || string(b) != `{"g":"`+g.String()+`"}` {
		t.Fatalf("%s, %v", b, err)
	}
	var back map[string]GFID
	if err := json.Unmarshal(b, &back); err != nil || back["g"] != g {
		t.Errorf("read back %v, %v, want %v", back["g"], err, g)
	}
	if err := json.Unmarshal([]byte(`{"g":"x"}`), &back); err == nil {
		t.Error("a GFID of one byte is read")
	}
}

func TestCompare(t *testing.T) {
	a, b := GFID{1}, GFID{1, 15: 1}
	if a.Compare(b) != -1 || b.Compare(a) != 1 || a.Compare(a) != 0 {
		t.Error("GFIDs are not ordered by their bytes")
	}
	if !(GFID{}).IsZero() || Root.IsZero() {
		t.Error("the zero GFID is not told from others")
	}
}

// GFIDs of many callers are unique, valid UUIDs of version 4, and stay in one
// handle directory for some thousand before the next.
func TestSource(t *testing.T) {
	const callers, each = 8, 4 * clusterSize
	var src Source
	var mu sync.Mutex
	seen := make(map[GFID]bool, callers*each)
	dirs := map[[2]byte]int{}
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			made := make([]GFID, each)
			for i := range made {
				made[i] = src.Next()
			}
			mu.Lock()
			defer mu.Unlock()
			for _, g := range made {
				if seen[g] {
					t.Errorf("%v came twice", g)
				}
				seen[g] = true
				dirs[[2]byte(g[:2])]++
				if g[6]>>4 != 4 || g[8]>>6 != 2 {
					t.Errorf("%v is no UUID of version 4", g)
				}
			}
		})
	}
	wg.Wait()
	want := callers * each / clusterSize
	// Two clusters may draw the same directory.
	if len(dirs) > want || len(dirs) < want-2 {
		t.Errorf("%d handle directories for %d GFIDs, want %d", len(dirs), len(seen), want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("d777fbee-47a0-4e3e-9992-d6b23f7ce618")
	f.Add("00000000-0000-0000-0000-00000000000g")
	f.Fuzz(func(t *testing.T, s string) {
		g, err := Parse(s)
		if err == nil && g.String() != strings.ToLower(s) {
			t.Errorf("%q reads as %v", s, g)
		}
	})
}

func BenchmarkSource(b *testing.B) {
	var src Source
	b.ReportAllocs()
	for b.Loop() {
		src.Next()
	}
}
