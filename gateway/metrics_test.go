package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// exempting is a rule with an exemption.
const exempting = `id: own.exempting
title: An address fails
severity: low
owner: security-team
reason: For a test.
review_by: 2027-05-31
on: login.after
when: outcome == "failure"
except:
  - {when: 'inNetwork(source.address, "198.51.100.0/24")', owner: taro, reason: A partner., until: 2027-01-31}
then:
  - tag: failed
mode: shadow
tests:
  - name: a failure matches
    given: [{outcome: failure}]
    expect: match
  - name: a success does not
    given: [{outcome: success}]
    expect: none
`

// Metrics tell how the gate is, also that a file was left out, in a closed set of
// names and labels.
func TestMetrics(t *testing.T) {
	dir := t.TempDir()
	port := freePorts(t, 1)[0]
	if err := os.Mkdir(filepath.Join(dir, "rules"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "rules", "bad.yaml"), []byte("id: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "rules", "own.exempting.yaml"), []byte(exempting), 0o600); err != nil {
		t.Fatal(err)
	}
	configure := func(more string) {
		t.Helper()
		load(t, adapt(t, fmt.Sprintf(`{
	admin off
	persist_config off
	auto_https off
	storage file_system %[1]s
	log {
		level PANIC
	}
	kidoban {
		data_dir %[1]s/data
		rules %[1]s/rules
		%[3]s
	}
}
http://127.0.0.1:%[2]d {
	bind 127.0.0.1
	metrics
}
`, dir, port, more)))
	}
	scrape := func() (text string, values map[string]string) {
		t.Helper()
		res, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", port))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		all, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		values = make(map[string]string)
		for _, line := range strings.Split(string(all), "\n") {
			if name, value, ok := strings.Cut(line, " "); ok && strings.HasPrefix(name, "kidoban_") {
				values[name] = value
			}
		}
		return string(all), values
	}
	configure("rules_memory {\n\t\t\ttotal 2097152\n\t\t}")
	text, values := scrape()
	for name, want := range map[string]string{
		`kidoban_campaign_alarms{stratum="strangers"}`: "0", `kidoban_campaign_alarms{stratum="operator"}`: "0",
		`kidoban_part_degraded{part="database"}`: "0", `kidoban_part_down{part="database"}`: "0",
		`kidoban_part_degraded{part="record"}`: "0", `kidoban_part_down{part="record"}`: "0",
		`kidoban_part_degraded{part="stream"}`: "0", `kidoban_part_degraded{part="outbox"}`: "0",
		`kidoban_part_degraded{part="keys"}`: "0", `kidoban_part_degraded{part="detectors"}`: "0",
		`kidoban_faults`: "1", `kidoban_nodes`: "1", `kidoban_acts_open`: "0", `kidoban_record_unwritten_denials`: "0",
		`kidoban_stream_waiting_events`: "0", `kidoban_stream_unsent_events_total`: "0",
		`kidoban_rules_disagree`: "0", `kidoban_findings_unkept_total`: "0", `kidoban_findings_without_incident_total`: "0", `kidoban_part_degraded{part="rules"}`: "0",
		`kidoban_rules_memory_limit_bytes`: "2.097152e+06", `kidoban_rules_memory_bytes`: "0", `kidoban_rules_keys`: "0", `kidoban_rules_keys_widened`: "0",
		`kidoban_rules_keys_forgotten`: "0", `kidoban_rules_events_late`: "0", `kidoban_rule_exempted{rule="own.exempting"}`: "0",
		`kidoban_notices_sent_total`: "0", `kidoban_notices_given_up_total`: "0",
	} {
		if values[name] != want {
			t.Errorf("%s is %q, want %s", name, values[name], want)
		}
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile(`kidoban_[a-z_]+`).FindAllString(text, -1) {
		if !strings.Contains(string(readme), "`"+name) {
			t.Errorf("README.md does not tell of %s", name)
		}
	}
	configure("") // a reload
	if _, values = scrape(); values["kidoban_rules_memory_limit_bytes"] != "2.68435456e+08" {
		t.Errorf("after a reload without rules_memory the limit is %s bytes, want the default", values["kidoban_rules_memory_limit_bytes"])
	}
}
