package gateway_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// TestReadmeExample: the configuration of second factors that README.md gives is valid
// as it stands, and so is its policy.
func TestReadmeExample(t *testing.T) {
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Second factors\n")
	var blocks []string
	inside := false
	for line := range strings.Lines(section) {
		code, indented := strings.CutPrefix(line, "    ")
		switch {
		case !indented:
			inside = false
		case !inside:
			inside = true
			blocks = append(blocks, code)
		default:
			blocks[len(blocks)-1] += code
		}
	}
	if len(blocks) < 2 {
		t.Fatalf("%d examples, want a Caddyfile and a policy", len(blocks))
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"policies/policy.yaml": blocks[1],
		"logo.svg":             `<svg xmlns="http://www.w3.org/2000/svg"/>`,
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("SMTP_URL", "smtp://gate:a-password-of-its-own@mail.example.com")
	var config caddy.Config
	if err := json.Unmarshal(adapt(t, strings.ReplaceAll(blocks[0], "/etc/kidoban", dir)), &config); err != nil {
		t.Fatal(err)
	}
	config.StorageRaw = fmt.Appendf(nil, `{"module":"file_system","root":%q}`, t.TempDir())
	if err := caddy.Validate(&config); err != nil {
		t.Error(err)
	}
}
