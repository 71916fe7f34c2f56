package transport_test

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/replicator/slave"
	"github.com/georep/georep/replicator/transport"
)

// BenchmarkMake makes small files, each complete in one operation, on a slave in
// this process and on one behind sshd: what the wire and its ciphers cost is the
// difference.
func BenchmarkMake(b *testing.B) {
	const files = 5000
	data := bytes.Repeat([]byte("x"), 4096)
	meta := &slave.Meta{Mode: 0o100644, UID: 1, GID: 1, Mtime: slave.Time{Sec: 1_600_000_000}}
	for _, on := range []string{"pipe", "ssh"} {
		b.Run(fmt.Sprintf("files=%d/size=%d/on=%s", files, len(data), on), func(b *testing.B) {
			m := newBrick(b)
			root := b.TempDir()
			var c *slave.Client
			var err error
			if on == "pipe" {
				c, err = slave.Local(b.Context(), root, m, slave.Options{Create: true})
			} else {
				c, err = session(b, newHost(b, root, ""), m, transport.Quote(georep)+" agent --root "+transport.Quote(root))
			}
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			var src gfid.Source
			round := 0
			for b.Loop() {
				round++
				dir := src.Next()
				ops := []slave.Op{{Kind: slave.Make, GFID: dir, Name: slave.Name{Parent: gfid.Root, Base: fmt.Sprint(round)}, Meta: &slave.Meta{Mode: 0o40755}}}
				for i := range files {
					ops = append(ops, slave.Op{
						Kind: slave.Make, GFID: src.Next(), Name: slave.Name{Parent: dir, Base: fmt.Sprintf("file-%d", i)},
						Meta: meta, Content: &slave.Content{Size: int64(len(data)), Extents: []slave.Extent{{Data: data}}},
					})
				}
				res, err := c.Apply(b.Context(), ops)
				if err != nil {
					b.Fatal(err)
				}
				for _, r := range res {
					if r.Errno != 0 {
						b.Fatal(r)
					}
				}
			}
			names, err := os.ReadDir(root + "/" + fmt.Sprint(round))
			if err != nil || len(names) != files {
				b.Fatalf("%d files, %v, want %d", len(names), err, files)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*files), "µs/file")
		})
	}
}
