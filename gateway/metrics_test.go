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
	}
}
http://127.0.0.1:%[2]d {
	bind 127.0.0.1
	metrics
}
`, dir, port)))
	res, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", port))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]string)
	for _, line := range strings.Split(string(text), "\n") {
		if name, value, ok := strings.Cut(line, " "); ok && strings.HasPrefix(name, "kidoban_") {
			values[name] = value
		}
	}
	for name, want := range map[string]string{
		`kidoban_campaign_alarms{stratum="strangers"}`: "0", `kidoban_campaign_alarms{stratum="operator"}`: "0",
		`kidoban_part_degraded{part="database"}`: "0", `kidoban_part_down{part="database"}`: "0",
		`kidoban_part_degraded{part="record"}`: "0", `kidoban_part_down{part="record"}`: "0",
		`kidoban_part_degraded{part="stream"}`: "0", `kidoban_part_degraded{part="outbox"}`: "0",
		`kidoban_part_degraded{part="keys"}`: "0", `kidoban_part_degraded{part="detectors"}`: "0",
		`kidoban_faults`: "1", `kidoban_nodes`: "1", `kidoban_acts_open`: "0", `kidoban_record_unwritten_denials`: "0",
		`kidoban_stream_waiting_events`: "0", `kidoban_stream_unsent_events_total`: "0",
		`kidoban_rules_disagree`: "0", `kidoban_findings_unkept_total`: "0", `kidoban_part_degraded{part="rules"}`: "0",
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
	for _, name := range regexp.MustCompile(`kidoban_[a-z_]+`).FindAllString(string(text), -1) {
		if !strings.Contains(string(readme), "`"+name) {
			t.Errorf("README.md does not tell of %s", name)
		}
	}
}
