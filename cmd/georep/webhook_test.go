package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"

	"github.com/rogpeppe/go-internal/testscript"
)

// webhookCommand is a command for scripts: webhook NAME takes what is posted to
// $NAME_url, but for the first time, and adds it to the file NAME.
func webhookCommand(ts *testscript.TestScript, neg bool, args []string) {
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		if _, err := io.Copy(f, r.Body); err != nil {
			w.WriteHeader(http.StatusInternalServerError)
		}
		io.WriteString(f, "\n")
	}))
	ts.Defer(func() {
		srv.Close()
		f.Close()
	})
	ts.Setenv(args[0]+"_url", srv.URL)
}

// fetchCommand is a command for scripts: fetch FROM FILE gets the URL that the file
// FROM holds.
func fetchCommand(ts *testscript.TestScript, neg bool, args []string) {
	url := strings.TrimSpace(ts.ReadFile(args[0]))
	resp, err := http.Get(url)
	ts.Check(err)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		ts.Fatalf("%s: %s", url, resp.Status)
	}
	text, err := io.ReadAll(resp.Body)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), text, 0o600))
}
