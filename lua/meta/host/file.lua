---@meta host.file
-- luacheck: no unused args
--- The files of the system that is being loaded.
local file = {}

---Reads a script file by its path within the system's folder: "init.lua". The second value is the
---name to load it under ("@scripts/NAME/init.lua"), so that errors show the real path. Codes:
---`file.not_found`, `file.name`, `file.outside`, `file.kind`, `file.too_large`, `file.text`,
---`file.io`, `script.files` (more than 256 files or 8 MiB).
---@param path string letters, digits, _ - . and /
---@return string? text
---@return string|host.Error chunk_name_or_err
function file.read(path) end

return file
