import ai.onnxruntime.OnnxJavaType;
import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OnnxValue;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtSession;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * RunOnnx WEIGHTS FOLDER: runs a graph on the CPU, as deepImageJ does.
 *
 * <p>FOLDER/inputs.txt has one line for each input, in the order of the graph: its shape, as 1,3,64,64. The numbers are in
 * FOLDER/input.0, input.1, ...: float32, little endian, C order. outputs.txt gets one line for each run, here one, with the
 * shapes of all outputs, as [[1, 2, 64, 64], [1, 5]]; their numbers go to output.RUN.0, output.RUN.1, ...
 */
public class RunOnnx {
    public static void main(String[] args) throws Exception {
        Path folder = Path.of(args[1]);
        List<String> shapes = Files.readAllLines(folder.resolve("inputs.txt"));
        OrtEnvironment environment = OrtEnvironment.getEnvironment();
        OrtSession.SessionOptions options = new OrtSession.SessionOptions();
        options.setOptimizationLevel(OrtSession.SessionOptions.OptLevel.BASIC_OPT);
        try (OrtSession session = environment.createSession(args[0], options)) {
            List<String> names = new ArrayList<>(session.getInputNames()); // in the order of the graph
            if (names.size() != shapes.size()) {
                throw new IllegalArgumentException("expected " + shapes.size() + " inputs, found " + names.size());
            }
            Map<String, OnnxTensor> inputs = new LinkedHashMap<>();
            for (int n = 0; n < names.size(); n++) {
                long[] shape = Arrays.stream(shapes.get(n).split(",")).mapToLong(Long::parseLong).toArray();
                ByteBuffer bytes = ByteBuffer.wrap(Files.readAllBytes(folder.resolve("input." + n))).order(ByteOrder.LITTLE_ENDIAN);
                inputs.put(names.get(n), OnnxTensor.createTensor(environment, bytes.asFloatBuffer(), shape));
            }
            List<String> found = new ArrayList<>();
            try (OrtSession.Result result = session.run(inputs)) {
                for (Map.Entry<String, OnnxValue> entry : result) {
                    OnnxTensor tensor = (OnnxTensor) entry.getValue();
                    if (tensor.getInfo().type != OnnxJavaType.FLOAT) {
                        throw new IllegalStateException("expected float32 outputs, found " + tensor.getInfo().type);
                    }
                    FloatBuffer numbers = tensor.getFloatBuffer();
                    ByteBuffer bytes = ByteBuffer.allocate(4 * numbers.remaining()).order(ByteOrder.LITTLE_ENDIAN);
                    bytes.asFloatBuffer().put(numbers);
                    Files.write(folder.resolve("output.0." + found.size()), bytes.array());
                    found.add(Arrays.toString(tensor.getInfo().getShape()));
                }
            }
            Files.write(folder.resolve("outputs.txt"), List.of(found.toString()));
        }
    }
}
