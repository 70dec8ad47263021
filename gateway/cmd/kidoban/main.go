// Command kidoban is the gateway: Caddy, Kidoban's modules and its commands.
package main

import (
	_ "time/tzdata" // time zones are known on every machine

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/kidoban/kidoban/gateway"
)

func main() {
	caddy.CustomBinaryName = "kidoban" // in help and examples
	caddycmd.Main()
}
