# METADATA
# title: Export
# description: >-
#   What goes with an export besides its grant: how many rows at most, by role; signing in again when they are
#   many; a second person's approval, which is the action approve on a record of the type export, when they
#   are more. Columns are the view "export" of the field policy.
# schemas:
#   - input: schema.input
# custom:
#   control: ISO 27001 A.8.12
package crm.export

import data.crm.facts

# METADATA
# scope: document
# title: Obligations
# description: The obligations of an export. A number of rows that is not known counts as too many.
obligations contains sprintf("rows:%d", [most]) if {
	input.action == "export"
	most := max({0} | {rows |
		some role in facts.roles
		rows := data.settings.export.rows[role]
	})
}

obligations contains "step_up" if {
	input.action == "export"
	not few
}

obligations contains "second_person" if {
	input.action == "export"
	not moderate
}

few if {
	input.environment.rows >= 0
	input.environment.rows <= data.settings.export.step_up_rows
}

moderate if {
	input.environment.rows >= 0
	input.environment.rows <= data.settings.export.approval_rows
}
