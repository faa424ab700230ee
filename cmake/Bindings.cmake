# Registers the tests of the packages for other languages; a language that is not installed is a skip, which `make test`
# prints and .ci/run takes as a failure.

set(bindings_library_dir $<TARGET_FILE_DIR:dlattn>)
dlattn_add_test(rust bindings tests/bindings/rust.sh ${bindings_library_dir} ${PROJECT_BINARY_DIR}/rust)
set_tests_properties(rust PROPERTIES SKIP_RETURN_CODE 77)
