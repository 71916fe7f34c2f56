package main

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"testing"
)

// What alert rules and dashboard ask for are metrics that there are.
func TestMonitoringNamesMetrics(t *testing.T) {
	source, err := os.ReadFile("../../replicator/daemon/metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, m := range regexp.MustCompile(`desc\("([a-z_]+)"`).FindAllStringSubmatch(string(source), -1) {
		have = append(have, "georep_"+m[1])
	}
	for _, file := range []string{"monitoring/alerts.yml", "monitoring/dashboard.json"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile(`georep_[a-z_]+`).FindAllString(string(text), -1)
		if len(names) == 0 {
			t.Errorf("%s names no metric", file)
		}
		for _, name := range names {
			if !slices.Contains(have, name) {
				t.Errorf("%s: there is no metric %s", file, name)
			}
		}
	}
	text, err := os.ReadFile("monitoring/dashboard.json")
	if err != nil || !json.Valid(text) {
		t.Errorf("dashboard.json is no JSON (%v)", err)
	}
}
