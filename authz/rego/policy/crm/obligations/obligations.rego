# METADATA
# title: Obligations
# description: What the subject must do before the action goes on.
# schemas:
#   - input: schema.input
# custom:
#   control: ISO 27001 A.8.15
package crm.obligations

# METADATA
# title: Needed
# description: The obligations of this action.
needed contains obligation if some obligation in data.settings.obligations_of[input.action]
