package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/rules"
)

func rulesSchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Writes the JSON Schema of rule files, for editors",
		Long: `
Writes the JSON Schema of a rule file. An editor that knows it completes keys and marks
unknown ones while a rule is written: of an editor with the YAML language server, begin
the file with "# yaml-language-server: $schema=rule.schema.json". Conditions, lists and
tests are checked by rules check alone.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			b, err := rules.Schema()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(os.Stdout, "%s\n", b)
			return err
		},
	}
}
