package gateway_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

// TestCaddyfile compares each testdata/caddyfile/*.txtar with what its Caddyfile
// becomes: JSON, or an error. With -update it writes what it got.
func TestCaddyfile(t *testing.T) {
	files, err := filepath.Glob("testdata/caddyfile/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d golden files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input := archive.Files[0]
			if input.Name != "Caddyfile" {
				t.Fatalf("the first file is %s, want Caddyfile", input.Name)
			}
			got := txtar.File{Name: "json"}
			text, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(input.Data, map[string]any{"filename": "Caddyfile"})
			if err != nil {
				got = txtar.File{Name: "error", Data: []byte(err.Error() + "\n")}
			} else {
				var pretty bytes.Buffer
				if err := json.Indent(&pretty, text, "", "\t"); err != nil {
					t.Fatal(err)
				}
				got.Data = append(pretty.Bytes(), '\n')
			}
			if *update {
				archive.Files = []txtar.File{input, got}
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if len(archive.Files) != 2 {
				t.Fatalf("%d files, want a Caddyfile and what it becomes; run with -update", len(archive.Files))
			}
			if diff := cmp.Diff(archive.Files[1], got, cmp.Transformer("text", func(b []byte) string { return string(b) })); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestProvision checks configurations as `caddy validate` does: nothing is opened.
func TestProvision(t *testing.T) {
	const handler = "\tkidoban {\n\t\tbackend lax\n\t}\n\trespond ok\n"
	key := "a-key-of-twenty-characters"
	t.Setenv("KIDOBAN_TEST_KEY", key)
	short := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(short, []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	site := func(body string) string { return "http://127.0.0.1:9 {\n" + body + "}\n" }
	global := func(kidoban, servers string) string {
		return fmt.Sprintf("{\n\tadmin off\n\tpersist_config off\n\tkidoban {\n\t\tpolicies testdata\n%s\t}\n%s}\n", kidoban, servers)
	}
	limit := func(body string) string { return "\t\tlimit x {\n" + body + "\t\t}\n" }
	letters := func(server, more string) string {
		return "\t\tmail {\n\t\t\tserver " + server + "\n\t\t\tfrom \"Chat <security@example.com>\"\n\t\t\tlink https://chat.example.com\n" + more + "\t\t}\n"
	}
	smtp := "smtp://gate:" + key + "@mail.example.com"
	trusting := "\tservers {\n\t\ttrusted_proxies static private_ranges\n\t}\n"
	strict := "\tservers {\n\t\ttrusted_proxies static private_ranges\n\t\ttrusted_proxies_strict\n\t}\n"
	for _, test := range []struct {
		name, config string
		want         string // part of the error; empty: none
	}{
		{"a backend and nothing else", global("", "") + site(handler), ""},
		{"the shipped preset", global("", "") + site("\tkidoban {\n\t\tbackend chatcore\n\t}\n"), ""},
		{"no kidoban block at all", "{\n\tadmin off\n}\n" + site("\tkidoban {\n\t\tbackend chatcore\n\t}\n"), ""},
		{"no backend", global("", "") + site("\tkidoban\n"), "backend is missing"},
		{"a backend that is not there", global("", "") + site("\tkidoban {\n\t\tbackend nowhere\n\t}\n"), "nowhere"},
		{"a backend outside of the folder", global("", "") + site("\tkidoban {\n\t\tbackend ../secret\n\t}\n"), "../secret"},
		{"an unknown control", global("\t\tmode everything observe\n", "") + site(handler), "unknown control everything"},
		{"an unknown control on a site", global("", "") + site("\tkidoban {\n\t\tbackend lax\n\t\tmode sleep observe\n\t}\n"), "unknown control sleep"},
		{"every control by name", global("\t\tmode decisions attempts limits sessions observe\n", "") + site(handler), ""},
		{"a limit without a rate", global(limit("\t\t\tkey address\n"), "") + site(handler), `limit 1 ("x")`},
		{"a limit without a key", global(limit("\t\t\trate 5/1s\n"), "") + site(handler), `limit 1 ("x")`},
		{"a rate that is none", global(limit("\t\t\tkey address\n\t\t\trate often\n"), "") + site(handler), "often"},
		{"a key that is none", global(limit("\t\t\tkey shoe_size\n\t\t\trate 5/1s\n"), "") + site(handler), "shoe_size"},
		{"two limits of one name", global(strings.Repeat(limit("\t\t\tkey address\n\t\t\trate 5/1s\n"), 2), "") + site(handler), `the name "x" is taken already`},
		{"too many limits", global(strings.Repeat(limit("\t\t\tkey address\n\t\t\trate 5/1s\n"), 9), "") + site(handler), "9 given, want at most 8"},
		{"memory of rules", global("\t\trules_memory {\n\t\t\ttotal 1048576\n\t\t\tcounter 1048576\n\t\t}\n", "") + site(handler), ""},
		{"too little memory for rules", global("\t\trules_memory {\n\t\t\ttotal 1048575\n\t\t}\n", "") + site(handler), "rules_memory: total: 1048575 bytes, want 1048576 (1 MiB) to 68719476736 (64 GiB)"},
		{"too little memory for a counter", global("\t\trules_memory {\n\t\t\tcounter 65535\n\t\t}\n", "") + site(handler), "rules_memory: counter: 65535 bytes, want 65536 (64 KiB) to 268435456, the total"},
		{"more memory for a counter than for all", global("\t\trules_memory {\n\t\t\ttotal 1048576\n\t\t\tcounter 1048577\n\t\t}\n", "") + site(handler), "rules_memory: counter: 1048577 bytes"},
		{"a login body too large to keep", global("", "") + site("\tkidoban {\n\t\tbackend lax\n\t\tmax_login_body 1048577\n\t}\n"), "max_login_body 1048577"},
		{"assertions", global("", "") + site("\tkidoban {\n\t\tbackend lax\n\t\tassert chat https://chat.example.com:8443\n\t}\n"), ""},
		{"assertions of a page", global("", "") + site("\tkidoban {\n\t\tbackend lax\n\t\tassert chat https://chat.example.com/\n\t}\n"), "want the origin of the site"},
		{"assertions of a name", global("", "") + site("\tkidoban {\n\t\tbackend lax\n\t\tassert chat chat.example.com\n\t}\n"), "want the origin of the site"},
		{"assertions to nobody", global("", "") + site("\tkidoban {\n\t\tbackend lax\n\t\tassert \"\" https://chat.example.com\n\t}\n"), "the audience is missing"},

		{"mail", global(letters(smtp, "\t\t\tto a@example.com\n\t\t\tto b@例え.jp {\n\t\t\t\tevents decision.lifted\n\t\t\t\tlanguage en\n\t\t\t\ttime_zone Asia/Tokyo\n\t\t\t}\n"), "") + site(handler), ""},
		{"mail twice", global(letters(smtp, "")+letters(smtp, ""), "") + site(handler), "twice"},
		{"mail without anything", global("\t\tmail {\n\t\t}\n", "") + site(handler), "mail: server:"},
		{"mail in the clear", global(letters("smtp+plain://gate:"+key+"@mail.example.com", ""), "") + site(handler), "mail: server: smtp+plain sends in the clear"},
		{"a mail server in an environment that lacks it", global(letters("{env.KIDOBAN_NO_SUCH_KEY}", ""), "") + site(handler), "KIDOBAN_NO_SUCH_KEY"},
		{"an authority that is not there", global(letters(smtp, "\t\t\tca /nowhere.pem\n"), "") + site(handler), "mail: ca:"},
		{"an authority that is none", global(letters(smtp, "\t\t\tca "+short+"\n"), "") + site(handler), "has no certificate in PEM"},
		{"mail to nobody", global(letters(smtp, "\t\t\tto nobody\n"), "") + site(handler), `to "nobody"`},
		{"mail to one twice", global(letters(smtp, "\t\t\tto a@example.com\n\t\t\tto a@EXAMPLE.com\n"), "") + site(handler), "twice"},
		{"mail of an event that is none", global(letters(smtp, "\t\t\tto a@example.com {\n\t\t\t\tevents decision.made\n\t\t\t}\n"), "") + site(handler), `unknown event "decision.made"`},
		{"mail in a language that is not written", global(letters(smtp, "\t\t\tto a@example.com {\n\t\t\t\tlanguage fr\n\t\t\t}\n"), "") + site(handler), `unknown language "fr"`},
		{"mail in a time zone that is none", global(letters(smtp, "\t\t\tto a@example.com {\n\t\t\t\ttime_zone Mars\n\t\t\t}\n"), "") + site(handler), `unknown time zone "Mars"`},
		{"mail with an option that is none", global(letters(smtp, "\t\t\tcopy x\n"), "") + site(handler), `unknown option "copy" of mail`},

		{"a backend said twice", global("", "") + site("\tkidoban {\n\t\tbackend lax\n\t\tbackend chatcore\n\t}\n"), "twice"},
		{"a data directory said twice", global("\t\tdata_dir /a\n\t\tdata_dir /b\n", "") + site(handler), "twice"},
		{"two global blocks", "{\n\tadmin off\n\tkidoban {\n\t\tdata_dir /a\n\t}\n\tkidoban {\n\t\tdata_dir /b\n\t}\n}\n" + site("\tkidoban {\n\t\tbackend chatcore\n\t}\n"), "twice"},
		{"a control where a limit has only a mode", global(limit("\t\t\tkey address\n\t\t\trate 5/1s\n\t\t\tmode sessions observe\n"), "") + site(handler), "mode"},

		{"trusted proxies without strict", global("", trusting) + site(handler), "trusted_proxies_strict"},
		{"trusted proxies with strict", global("", strict) + site(handler), ""},
		{"trusted proxies without strict, by way of lax_forwarding", global("\t\tlax_forwarding\n", trusting) + site(handler), ""},

		{"operators without a key", global("", "") + site("\tkidoban_api\n"), "at least one key"},
		{"a key that is too short", global("", "") + site("\tkidoban_api {\n\t\tkey tester short\n\t}\n"), `key of operator "tester": is too short`},
		{"a key in the environment", global("", "") + site("\tkidoban_api {\n\t\tkey tester {env.KIDOBAN_TEST_KEY}\n\t}\n"), ""},
		{"a key in an environment that lacks it", global("", "") + site("\tkidoban_api {\n\t\tkey tester {env.KIDOBAN_NO_SUCH_KEY}\n\t}\n"), "KIDOBAN_NO_SUCH_KEY"},
		{"a key that is not random", global("", "") + site("\tkidoban_api {\n\t\tkey tester aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n\t}\n"), "not random"},
		{"a role that is none", global("", "") + site("\tkidoban_api {\n\t\tkey tester {env.KIDOBAN_TEST_KEY} role king\n\t}\n"), `unknown role "king"`},
		{"an end that is none", global("", "") + site("\tkidoban_api {\n\t\tkey tester {env.KIDOBAN_TEST_KEY} expires never\n\t}\n"), `expires "never"`},
		{"a key with a role and an end", global("", "") + site("\tkidoban_api {\n\t\tkey tester {env.KIDOBAN_TEST_KEY} role viewer expires 2027-03-31\n\t}\n"), ""},
		{"one key for two", global("", "") + site("\tkidoban_api {\n\t\tkey a {env.KIDOBAN_TEST_KEY}\n\t\tkey b {env.KIDOBAN_TEST_KEY}\n\t}\n"), "the same key"},
		{"a signing key in the environment", global("", "") + site("\tkidoban_api {\n\t\taws tester KIDOBAN1 {env.KIDOBAN_TEST_KEY}\n\t\tservice execute-api\n\t}\n"), ""},
		{"a signing key in the configuration", global("", "") + site("\tkidoban_api {\n\t\taws tester KIDOBAN1 "+key+"\n\t}\n"), "must not stand in the configuration"},
		{"a signing key that is too short", global("", "") + site("\tkidoban_api {\n\t\taws tester KIDOBAN1 {file."+short+"}\n\t}\n"), "too short"},
		{"an access key id that is none", global("", "") + site("\tkidoban_api {\n\t\taws tester a/b {env.KIDOBAN_TEST_KEY}\n\t}\n"), `"a/b"`},
		{"a service that is none", global("", "") + site("\tkidoban_api {\n\t\tkey tester {env.KIDOBAN_TEST_KEY}\n\t\tservice a/b\n\t}\n"), `service "a/b"`},
		{"a key in a file, too short", global("", "") + site("\tkidoban_api {\n\t\tkey tester {file."+short+"}\n\t}\n"), "too short"},
	} {
		t.Run(test.name, func(t *testing.T) {
			text, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(test.config), map[string]any{"filename": "Caddyfile"})
			if err == nil {
				var config caddy.Config
				if err := json.Unmarshal(text, &config); err != nil {
					t.Fatal(err)
				}
				config.StorageRaw = fmt.Appendf(nil, `{"module":"file_system","root":%q}`, t.TempDir())
				err = caddy.Validate(&config)
			}
			switch {
			case test.want == "" && err != nil:
				t.Errorf("error = %v, want none", err)
			case test.want != "" && err == nil:
				t.Errorf("no error, want one with %q", test.want)
			case err != nil && !strings.Contains(err.Error(), test.want):
				t.Errorf("error = %v, want %q in it", err, test.want)
			case err != nil && (strings.Contains(err.Error(), key) || strings.Contains(err.Error(), "short\n")):
				t.Errorf("the error shows a key: %v", err)
			}
		})
	}
}

// TestRefusesToStart shows that a configuration whose client addresses anybody
// could choose does not come up.
func TestRefusesToStart(t *testing.T) {
	config := func(option string) []byte {
		return adapt(t, fmt.Sprintf(`{
	admin off
	persist_config off
	storage file_system %[1]s
	log {
		output discard
	}
	servers {
		trusted_proxies static private_ranges
	}
	kidoban {
		data_dir %[1]s
		policies testdata
		%[3]s
	}
}
http://127.0.0.1:%[2]d {
	bind 127.0.0.1
	kidoban {
		backend lax
	}
	respond ok
}
`, t.TempDir(), freePorts(t, 1)[0], option))
	}
	if err := caddy.Load(config(""), true); err == nil || !strings.Contains(err.Error(), "trusted_proxies_strict") {
		t.Errorf("error = %v, want one that names trusted_proxies_strict", err)
		caddy.Stop()
	}
	load(t, config("lax_forwarding"))
}
